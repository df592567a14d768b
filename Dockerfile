# slmops on CPU, in two images: `serve`, and `jobs`, which also tunes, converts, quantizes and evaluates (PyTorch, Olive).
# Build: docker build -t slmops .                          # serve
#        docker build -t slmops:jobs --target jobs .
# Run:   docker run -p 127.0.0.1:8000:8000 -e SLMOPS_API_KEY=choose-one -v slmops:/var/lib/slmops slmops
# The container binds 0.0.0.0, and slmops refuses to listen beyond loopback without a key. docs/operate/containers.md has the rest.

FROM debian:bookworm-slim AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/slmops
WORKDIR /src
COPY . .
RUN PIP_CONSTRAINT=constraints.txt /opt/slmops/bin/pip install .

FROM build AS build-jobs
# PyTorch's own index has the build without CUDA, of 0.2 instead of 3 GB.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/slmops/bin/pip install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"
RUN PIP_CONSTRAINT=constraints.txt /opt/slmops/bin/pip install '.[olive]'

FROM python AS runtime
RUN groupadd --gid 10001 slmops \
 && useradd --uid 10001 --gid slmops --no-create-home --home-dir /var/lib/slmops --shell /usr/sbin/nologin slmops \
 && install -d -m 0700 -o slmops -g slmops /var/lib/slmops
ENV PATH=/opt/slmops/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SLMOPS_HOME=/var/lib/slmops \
    SLMOPS_HOST=0.0.0.0 \
    SLMOPS_PORT=8000
USER 10001:10001
WORKDIR /var/lib/slmops
VOLUME /var/lib/slmops
EXPOSE 8000
# The start period covers the first pull of the default model.
HEALTHCHECK --interval=10s --timeout=4s --start-period=300s --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['SLMOPS_PORT'] + '/health', timeout=3)"]
ENTRYPOINT ["slmops"]
CMD ["serve"]

FROM runtime AS jobs
COPY --from=build-jobs /opt/slmops /opt/slmops

FROM runtime AS serve
COPY --from=build /opt/slmops /opt/slmops
