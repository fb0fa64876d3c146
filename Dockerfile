# CPU-only images: jobs, the six jobs; cluster, the same with Ray. pip and its leftovers stay in the first stage.
FROM python:3.11-slim-bookworm AS packages
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY requirements-torch.txt requirements.lock ./
# PyTorch's CPU index first, for torch and torchvision alone and with one try, so that a network without it is through
# in seconds; then whatever index pip is set up for. Everything else comes from the lock, checked against its hashes.
# The secret ca (CA_BUNDLE in .env): certificates of one's own network, trusted here besides the public ones and left out of
# the image. Proxies are build arguments that Docker knows and keeps out of the history.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=ca \
    --mount=type=bind,source=deploy/slim.sh,target=/tmp/slim.sh \
    { [ ! -s /run/secrets/ca ] || { cat /etc/ssl/certs/ca-certificates.crt /run/secrets/ca > /tmp/ca.pem && export PIP_CERT=/tmp/ca.pem; }; } && \
    PIP="python -m pip --python /opt/venv/bin/python install --no-deps --no-compile" && \
    ($PIP --retries 0 --timeout 10 --index-url https://download.pytorch.org/whl/cpu -r requirements-torch.txt \
     || python -m pip --python /opt/venv/bin/python install --no-compile "$(grep ^torch= requirements-torch.txt)" ) && \
    $PIP -r requirements-torch.txt && \
    $PIP --require-hashes -r requirements.lock && \
    bash /tmp/slim.sh jobs /opt/venv/lib/python3.11/site-packages && \
    cd /opt/venv/lib/python3.11/site-packages && \
    (/opt/venv/bin/python -m compileall -q -j 0 . >/dev/null || true) # templates that are not Python 3 do not compile

FROM python:3.11-slim-bookworm AS base
LABEL org.opencontainers.image.title="cxr-jobs" \
      org.opencontainers.image.description="Chest X-ray classification in batch jobs, on CPU. Not a medical device."
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
# MALLOC_*: glibc gives memory back to the kernel after every training step and faults it in again; keeping it made
# EfficientNet-Lite0 2.5 times as fast (docs/ARCHITECTURE.md).
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    HF_HUB_OFFLINE=1 \
    MALLOC_MMAP_THRESHOLD_=4294967296 \
    MALLOC_TRIM_THRESHOLD_=17179869184

# Nodes of a Ray cluster, and the jobs that use one. GRPC_ENABLE_FORK_SUPPORT: with it, the server behind ray:// starts only
# every other time.
FROM base AS cluster
COPY requirements-ray.lock /tmp/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=ca \
    --mount=type=bind,source=deploy/slim.sh,target=/tmp/slim.sh \
    { [ ! -s /run/secrets/ca ] || { cat /etc/ssl/certs/ca-certificates.crt /run/secrets/ca > /tmp/ca.pem && export PIP_CERT=/tmp/ca.pem; }; } && \
    /usr/local/bin/python -m pip --python /opt/venv/bin/python install --no-deps --no-compile --require-hashes -r /tmp/requirements-ray.lock && \
    rm -f /tmp/requirements-ray.lock /tmp/ca.pem && \
    bash /tmp/slim.sh cluster /opt/venv/lib/python3.11/site-packages && \
    cd /opt/venv/lib/python3.11/site-packages && \
    (/opt/venv/bin/python -m compileall -q -j 0 ray pyarrow >/dev/null || true)
ENV RAY_USAGE_STATS_ENABLED=0 \
    GRPC_ENABLE_FORK_SUPPORT=0 \
    USER=ray
COPY lib lib
COPY jobs jobs
RUN python -m compileall -q lib jobs && mkdir -p data runs
USER 1000:1000
ARG VERSION=unversioned
LABEL org.opencontainers.image.version=$VERSION

FROM base AS jobs
COPY lib lib
COPY jobs jobs
RUN python -m compileall -q lib jobs && mkdir -p data runs
USER 1000:1000
ARG VERSION=unversioned
LABEL org.opencontainers.image.version=$VERSION
CMD ["sh", "-c", "echo 'Run one of the jobs, for example: docker compose run --rm train --phase a'; ls jobs"]
