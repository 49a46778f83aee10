# hpo as an image: `docker compose build`, or `docker build -t hpo .`
#
# PYTHON_IMAGE  Debian with Python 3.11 to 3.13 and its venv module
# TORCH_INDEX   address of an index with other builds of torch, such as those for the CPU alone (4 GB less)
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=
WORKDIR /src
RUN python3 -m venv /opt/hpo
# What hpo depends on, apart from hpo: a layer of gigabytes that stays when the code changes.
COPY pyproject.toml ./
RUN mkdir hpo models && touch hpo/__init__.py models/__init__.py README.md LICENSE \
    && /opt/hpo/bin/pip install --no-cache-dir --disable-pip-version-check \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[postgres,onnx,explain]' \
    && /opt/hpo/bin/pip uninstall --yes --quiet hpo

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/hpo /opt/hpo
COPY pyproject.toml README.md LICENSE /src/
COPY hpo /src/hpo
COPY models /src/models
# What runs may be any user of group 0, so that files on mounts can be owned by whoever mounts them.
RUN /opt/hpo/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /src \
    && rm -r /src \
    && mkdir -p /srv/hpo/cache /srv/hpo/checkpoints /srv/hpo/results /srv/hpo/studies \
    && chgrp -R 0 /srv/hpo && chmod -R g=u /srv/hpo
ENV PATH=/opt/hpo/bin:$PATH \
    HOME=/tmp \
    HPO_CACHE=/srv/hpo/cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/hpo
USER 1000:0
ENTRYPOINT ["hpo"]
CMD ["--help"]
