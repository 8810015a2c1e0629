# Training: jax, and neither torch nor a simulator.
#
#   docker build -f docker/training.Dockerfile -t chunkwire/training .
#   docker build -f docker/training.Dockerfile -t chunkwire/training:cpu --build-arg ACCELERATOR=cpu .
#   mkdir -p runs && docker run --rm --gpus all --shm-size 8g --user $(id -u):$(id -g) \
#       -v $PWD/datasets:/datasets:ro -v $PWD/runs:/runs chunkwire/training \
#       pi05_maniskill_stackcube --exp-name first --dataset /datasets/stackcube
#
# BASE and the build arguments of pip: see policy_server.Dockerfile.
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
    && pip install --constraint constraints.txt '.[train,lerobot,wandb]' "$jax" \
    && pip uninstall --yes chunkwire

FROM dependencies AS project
COPY README.md ./
COPY proto proto
COPY policy_server policy_server
COPY training training
RUN rm -r sim_client && pip install --no-deps --target /opt/project . \
    && cd /opt/project/bin && rm eval-stack serve sim-client

FROM dependencies AS environment
RUN pip uninstall --yes --quiet setuptools pip

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=environment /opt/chunkwire /opt/chunkwire
# Nothing is written outside /runs, /cache and /tmp: the root filesystem may be read-only.
RUN useradd --uid 1000 --no-create-home chunkwire && mkdir -m 1777 /cache /runs
COPY docker/as-owner /usr/local/bin/
COPY --from=project /opt/project /opt/project
ENV PATH=/opt/project/bin:/opt/chunkwire/bin:$PATH PYTHONPATH=/opt/project \
    HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CHUNKWIRE_CACHE=/cache
VOLUME /cache
USER chunkwire
# Its default folder for runs is ./runs.
WORKDIR /
LABEL org.opencontainers.image.title="Chunkwire training" \
      org.opencontainers.image.description="Trains Pi0 and Pi0.5 policies from LeRobot datasets into orbax checkpoints" \
      org.opencontainers.image.licenses="Apache-2.0"
STOPSIGNAL SIGTERM
ENTRYPOINT ["train"]
CMD ["--help"]
