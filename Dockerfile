# slmops on CPU. Build: docker build -t slmops .
# Run:   docker run -p 8000:8000 -e SLMOPS_API_KEY=choose-one -v slmops:/var/lib/slmops slmops
# The container binds 0.0.0.0, and slmops refuses to listen beyond loopback without a key: SLMOPS_API_KEY, or one in the volume
# (docker run --rm -v slmops:/var/lib/slmops slmops keys create --name NAME --scope admin). Clients send it as their API key.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /usr/local/slmops
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY model_registry model_registry
COPY runtime runtime
COPY jobs jobs
COPY server server
RUN PIP_CONSTRAINT=constraints.txt /usr/local/slmops/bin/pip install .

FROM python:3.11-slim
RUN groupadd --gid 10001 slmops \
 && useradd --uid 10001 --gid slmops --no-create-home --home-dir /var/lib/slmops --shell /usr/sbin/nologin slmops \
 && install -d -m 0700 -o slmops -g slmops /var/lib/slmops
COPY --from=build /usr/local/slmops /usr/local/slmops
ENV PATH=/usr/local/slmops/bin:$PATH \
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
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['SLMOPS_PORT'] + '/health', timeout=3)"]
ENTRYPOINT ["slmops"]
CMD ["serve"]
