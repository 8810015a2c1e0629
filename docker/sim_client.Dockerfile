# The simulator client: ManiSkill on a CPU or a GPU, and no jax.
#
#   docker build -f docker/sim_client.Dockerfile -t chunkwire/sim-client .
#   mkdir -p results && docker run --rm --network host --user $(id -u):$(id -g) -v $PWD/results:/results \
#       chunkwire/sim-client --env StackCube-v1 --episodes 20
#
# Renders on an NVIDIA GPU where the container is given one (--gpus all), else on the CPU by Mesa's lavapipe.
# torch comes from the package index, which has the CUDA build: it simulates on both. For a smaller image without CUDA,
# name an index or a page of links that has torch's CPU build: --build-arg PIP_EXTRA_INDEX_URL=… or PIP_FIND_LINKS=….
# BASE must have the Python of Debian 12: the pinned numpy and mplib have no wheels for 3.13.
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
COPY docker/constraints/simulator.txt constraints.txt
RUN mkdir -p proto/policy_protocol && mkdir policy_server sim_client training \
    && touch README.md proto/policy_protocol/__init__.py \
        policy_server/__init__.py sim_client/__init__.py training/__init__.py
RUN pip install --constraint constraints.txt '.[sim,ray]' && pip uninstall --yes chunkwire

FROM dependencies AS project
COPY README.md ./
COPY proto proto
COPY sim_client sim_client
RUN rm -r policy_server training && pip install --no-deps --target /opt/project . \
    && cd /opt/project/bin && rm eval-stack serve train

FROM dependencies AS environment
RUN pip uninstall --yes --quiet setuptools pip

FROM ${BASE}
COPY docker/install-vulkan.sh docker/bookworm-source.sh docker/nvidia/ /tmp/vulkan/
# Mesa first: it is what install-vulkan.sh looks for where no NVIDIA driver is. The driver's own libraries come from the
# host with the GPU; the two files tell the Vulkan loader and EGL of them.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && sh /tmp/vulkan/install-vulkan.sh \
    && install -D -m 644 /tmp/vulkan/nvidia_icd.json /usr/share/vulkan/icd.d/nvidia_icd.json \
    && install -D -m 644 /tmp/vulkan/10_nvidia.json /usr/share/glvnd/egl_vendor.d/10_nvidia.json \
    && rm -rf /tmp/vulkan /var/lib/apt/lists/*
COPY --from=environment /opt/chunkwire /opt/chunkwire
# Nothing is written outside /results and /tmp: the root filesystem may be read-only.
RUN useradd --uid 1000 --no-create-home chunkwire && mkdir -m 1777 /results
COPY docker/as-owner /usr/local/bin/
COPY --from=project /opt/project /opt/project
ENV PATH=/opt/project/bin:/opt/chunkwire/bin:$PATH PYTHONPATH=/opt/project \
    HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
USER chunkwire
# Its default folder for results is ./results.
WORKDIR /
LABEL org.opencontainers.image.title="Chunkwire simulator client" \
      org.opencontainers.image.description="Evaluates a served policy in ManiSkill and reports a success rate" \
      org.opencontainers.image.licenses="Apache-2.0"
STOPSIGNAL SIGINT
ENTRYPOINT ["sim-client"]
CMD ["--help"]
