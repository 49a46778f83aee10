#!/usr/bin/env bash
# Base images for tests/compose.sh where none can be pulled: Debian with Python, and Debian with PostgreSQL that
# starts as the official image does, as far as docker-compose.yml asks for it. Needs root, debootstrap and docker.
# Prints the tags. Where packages come through a proxy with a certificate of its own, this machine's are taken over.
set -euo pipefail

python=hpo-test/python:bookworm
postgres=hpo-test/postgres:bookworm
certificates=/etc/ssl/certs/ca-certificates.crt
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debian() { debootstrap --variant=minbase --include="ca-certificates,$2" bookworm "$1" >&2; }

debian "$root/python" python3,python3-venv
cp "$certificates" "$root/python$certificates"
tar -C "$root/python" -c . |
    docker import --change "ENV PIP_CERT=$certificates" - "$python" >/dev/null

debian "$root/postgres" postgresql
cat >"$root/postgres/usr/local/bin/start" <<'EOF'
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 >/dev/null
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses=''" start >/dev/null
    PGPASSWORD=$POSTGRES_PASSWORD createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl --wait stop >/dev/null
fi
exec postgres -c listen_addresses='*'
EOF
chmod +x "$root/postgres/usr/local/bin/start"
install -d -m 700 "$root/postgres/var/lib/postgresql/data"
chroot "$root/postgres" chown postgres:postgres /var/lib/postgresql/data
chmod 3777 "$root/postgres/run/postgresql" # as there, for whatever user it runs as
bin=$(cd "$root/postgres" && echo usr/lib/postgresql/*/bin)
tar -C "$root/postgres" -c . | docker import \
    --change "ENV PATH=/$bin:/usr/local/bin:/usr/bin:/bin" \
    --change "ENV PGDATA=/var/lib/postgresql/data" \
    --change 'ENTRYPOINT ["start"]' \
    - "$postgres" >/dev/null

echo "PYTHON_IMAGE=$python POSTGRES_IMAGE=$postgres"
