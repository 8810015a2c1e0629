# The policy server: jax, and neither torch nor a simulator.
#
#   docker build -f docker/policy_server.Dockerfile -t chunkwire/policy-server .
#   docker build -f docker/policy_server.Dockerfile -t chunkwire/policy-server:cpu --build-arg ACCELERATOR=cpu .
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 -v $PWD/checkpoints/run/29999:/checkpoint:ro chunkwire/policy-server
#
# BASE is any Debian 12 (or a later one with Python 3.11 or newer): see make-base-image.sh for hosts that cannot pull.
# PIP_INDEX_URL and PIP_FIND_LINKS may name a mirror of the package index.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS dependencies
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv
RUN python3 -m venv /opt/chunkwire
ENV PATH=/opt/chunkwire/bin:$PATH \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
# What the project needs changes less often than the project: layers of its own, made with an empty one.
COPY pyproject.toml LICENSE ./
COPY docker/constraints/model.txt constraints.txt
RUN mkdir -p proto/policy_protocol && mkdir policy_server sim_client training \
    && touch README.md proto/policy_protocol/__init__.py \
        policy_server/__init__.py sim_client/__init__.py training/__init__.py
ARG ACCELERATOR=cuda12
RUN if [ "$ACCELERATOR" = cpu ]; then jax=jax; else jax="jax[$ACCELERATOR]"; fi \
    && pip install --constraint constraints.txt '.[server]' "$jax" \
    && pip uninstall --yes chunkwire

FROM dependencies AS project
COPY README.md ./
COPY proto proto
COPY policy_server policy_server
COPY training training
RUN rm -r sim_client && pip install --no-deps --target /opt/project . \
    && cd /opt/project/bin && rm eval-stack sim-client train

FROM dependencies AS environment
RUN pip uninstall --yes --quiet setuptools pip

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=environment /opt/chunkwire /opt/chunkwire
# Nothing is written outside /cache and /tmp: the root filesystem may be read-only.
RUN useradd --uid 1000 --no-create-home chunkwire && mkdir -m 1777 /cache
COPY docker/as-owner docker/restarting /usr/local/bin/
COPY --from=project /opt/project /opt/project
ENV PATH=/opt/project/bin:/opt/chunkwire/bin:$PATH PYTHONPATH=/opt/project \
    HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CHUNKWIRE_CACHE=/cache
VOLUME /cache
USER chunkwire
EXPOSE 8000 8001
# Ready is more than started: every shape is compiled. The first start of a large policy takes minutes.
HEALTHCHECK --interval=3s --timeout=5s --start-period=30m --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
LABEL org.opencontainers.image.title="Chunkwire policy server" \
      org.opencontainers.image.description="Serves a Pi0 or Pi0.5 checkpoint's action chunks over WebSocket and gRPC" \
      org.opencontainers.image.licenses="Apache-2.0"
STOPSIGNAL SIGTERM
ENTRYPOINT ["serve", "--host", "0.0.0.0"]
CMD ["--checkpoint", "/checkpoint"]
