"""Watching studies in a browser: optuna-dashboard over a view of the store that cannot write, behind a login.

server     waitress, with limits of size and time
guard      which requests come through: methods, Host, Origin; headers of what goes out
login      sessions; slowdown, password
app        optuna-dashboard's application, and the routes that are ours
bundle     the page's script, which draws many trials with less work
storage    what it reads: a `BaseStorage` over the store
watched    one study of it: trials, state, search space
readable   trials and attributes as people, and JSON, can read them
detail     a study as the page fetches it: thinned, cached, compressed
notes      the study's note
plots      figures of ours on the study's page
downloads  trials as CSV
"""
