"""The page's script: optuna-dashboard's, which draws many trials, and what is out of sight, with less work.

Its history has an SVG element for each trial, and its timeline a bar for each though it opens on the last
hundred: of 10,000 trials more than half of the seconds until a study's page answers.
"""

import functools
import gzip
from pathlib import Path

import optuna_dashboard

CHANGES = {
    # The history: points that WebGL draws. They show and do what the others did.
    'mode:"markers",type:"scatter",text:o.map(e=>pb(e)),hovertemplate:h': (
        'mode:"markers",type:o.length>1e3?"scattergl":"scatter",text:o.map(e=>pb(e)),hovertemplate:h'
    ),
    # A click on a point of it leads to the trial: traces lie by kind, and of each kind one for each study.
    "r=e[Math.floor(t.points[0].curveNumber/2)].id": "r=e[t.points[0].curveNumber%e.length].id",
    # The timeline: bars of the last hundred, on which it opens.
    "[t,n]of Object.entries(r)){const r=e.filter(e=>e.state===t)": (
        "[t,n]of Object.entries(r)){const r=e.slice(-100).filter(e=>e.state===t)"
    ),
    # Our figures: drawn when they come near the screen, or are printed.
    (
        "(0,n.useEffect)(()=>{try{const r=JSON.parse(e.graph_object);nv.react(t,r.data,r.layout)}"
        "catch(e){console.error(e)}},[e])"
    ): (
        "(0,n.useEffect)(()=>{const i=()=>{o.disconnect();removeEventListener('beforeprint',a)},"
        "a=()=>{i();try{const r=JSON.parse(e.graph_object);nv.react(t,r.data,r.layout)}"
        "catch(e){console.error(e)}},o=new IntersectionObserver(e=>{e.some(e=>e.isIntersecting)&&a()},"
        "{rootMargin:'50% 0px'});o.observe(document.getElementById(t));"
        "addEventListener('beforeprint',a);return i},[e])"
    ),
}
"""What stands in the script, once each, and what takes its place. Where another release of optuna-dashboard
has something else, the page is as slow as it was, and a test says so."""


def original() -> str:
    """optuna-dashboard's script as it comes."""
    return (Path(optuna_dashboard.__file__).parent / "public" / "bundle.js").read_text(encoding="utf-8")


@functools.cache
def bundle() -> bytes:
    """The script, compressed."""
    script = original()
    for theirs, ours in CHANGES.items():
        script = script.replace(theirs, ours)
    return gzip.compress(script.encode(), compresslevel=6, mtime=0)
