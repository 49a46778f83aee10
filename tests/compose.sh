#!/usr/bin/env bash
# docker-compose.yml for real: brings the stack up, submits a study, scales workers to 3, kills one, restarts the
# database, waits for the end, and checks what came of it. Leaves nothing behind but the image hpo:test.
#
#   make test-compose                                                       with the official base images
#   make test-compose PYTHON_IMAGE=… POSTGRES_IMAGE=… TORCH_INDEX=…          with others (compose_images.sh)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

trials=300
folder=$(mktemp -d)
mkdir "$folder/studies" "$folder/out"
cat >"$folder/studies/stack.yaml" <<EOF
name: stack
data: {source: sklearn, name: breast_cancer}
search:
  learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
  width: {choices: [64, 80, 96, 112]}
  dropout: {low: 0.0, high: 0.5}
training: {epochs: 40, batch_size: 8}
sampler: random
trials: $trials
final: {top: 2, seeds: 2}
EOF
chmod -R a+rwX "$folder"

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--project-name "hpo-test-$$" --env-file "$folder/env")
cat >"$folder/env" <<EOF
HPO_TAG=test
HPO_DATABASE_PASSWORD=of:a%test/with@all?
HPO_DASHBOARD_PORT=${HPO_DASHBOARD_PORT:-18080}
HPO_DASHBOARD_PASSWORD_HASH=scrypt:15:gKenIVF_BMCIGzGT7WJOCQ==:V-6WfS73bPhYVl7Pew3ly3XR5aVE3FowOPrYZEDA0Kk=
HPO_STUDIES=$folder/studies
HPO_DATA=$folder/studies
HPO_OUT=$folder/out
EOF

finish() {
    local code=$?
    ((code == 0)) || "${compose[@]}" logs --tail 40 || true
    "${compose[@]}" down --volumes --remove-orphans --timeout 20 >/dev/null 2>&1 || true
    rm -rf "$folder"
    ((code == 0)) && echo "compose: all checks passed" || echo "compose: FAILED" >&2
    exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

step() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() { echo "not so: $*" >&2; exit 1; }
hpo() { "${compose[@]}" run --rm -T cli "$@"; }
sql() { "${compose[@]}" exec -T database psql --username=hpo --host=/var/run/postgresql --tuples-only --no-align --command "$1"; }
finished() { sql "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL')"; }
eventually() {  # seconds, then a command that must come true
    local end=$((SECONDS + $1)); shift
    until "$@"; do ((SECONDS < end)) || fail "within its time: $*"; sleep 1; done
}
at_least() { (($(finished) >= $1)); }
is_in_state() { hpo status stack --json | grep -q "\"state\": \"$1\""; }

step "images"
"${compose[@]}" build init

step "up, as a user starts it"
"${compose[@]}" up --detach
hpo submit studies/stack.yaml
"${compose[@]}" up --detach --scale worker=3 --no-recreate

step "the dashboard asks for a login; the database is not published"
address=http://127.0.0.1:${HPO_DASHBOARD_PORT:-18080}
eventually 60 curl --silent --fail --output /dev/null "$address/healthz"
curl --silent --location "$address/" | grep -qi password || fail "$address/ asks for a password"
[[ $(curl --silent --output /dev/null --write-out '%{http_code}' "$address/api/studies") == 401 ]] ||
    fail "$address/api/studies answers without a login"
database=$("${compose[@]}" ps -q database)
[[ -z $(docker port "$database") ]] || fail "the database is not published"

step "nothing runs as root or can change its image"
for container in $("${compose[@]}" ps -q worker dashboard database); do
    [[ $(docker exec "$container" id -u) != 0 ]] || fail "$container runs as an ordinary user"
    ! docker exec "$container" touch /usr/there 2>/dev/null || fail "$container has a read-only root"
done

step "one worker is killed"
eventually 300 at_least 3
victim=$("${compose[@]}" ps -q worker | head -n 1)
docker kill "$victim" >/dev/null

step "the database is restarted"
eventually 300 at_least 10
"${compose[@]}" restart database >/dev/null 2>&1

step "a worker that is stopped hands its trials back in time"
eventually 300 at_least 15
stopped=$("${compose[@]}" ps -q worker | grep -v "$victim" | head -n 1)
docker stop --time 20 "$stopped" >/dev/null
[[ $(docker inspect --format '{{.State.ExitCode}}' "$stopped") == 0 ]] || fail "$stopped ended well"
docker start "$stopped" >/dev/null

step "the end: exactly $trials trials, and a result"
eventually 900 is_in_state finished
[[ $(finished) == "$trials" && $(sql 'SELECT count(*) FROM trials') == "$trials" ]] || fail "$trials trials"
[[ $(sql "SELECT count(*) FROM trials WHERE state = 'FAIL'") == 0 ]] || fail "no trial failed"

step "export"
hpo export stack --out /out/stack
for file in best.json metrics.json model.safetensors preprocessing.skops README.md; do
    [[ -s $folder/out/stack/$file ]] || fail "out/stack/$file is there"
done

step "all are healthy"
for container in $("${compose[@]}" ps -q database dashboard) $stopped; do
    eventually 120 eval "[[ \$(docker inspect --format '{{.State.Health.Status}}' $container) == healthy ]]"
done
