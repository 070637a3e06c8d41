# An image that needs nothing at run time: no shell, no package manager, no compiler, no place to write.
#
# docs/decisions/image.md says why each part is as it is. `make image` builds it with docker, podman or buildah.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
# Both secrets are optional: `pip` is a pip.conf (an index of your own), `ca` a certificate bundle that it may name. A
# secret leaves no trace in a layer; a build argument would.
COPY requirements.lock requirements-build.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    python3 -m venv --without-pip /opt/auction \
    && python3 -m pip --python /opt/auction install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock \
    && python3 -m venv --without-pip /opt/build \
    && python3 -m pip --python /opt/build install --no-cache-dir --only-binary :all: --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY auction auction
COPY bidders bidders
RUN python3 -m pip --python /opt/build wheel --no-index --no-deps --no-build-isolation --wheel-dir /src/dist . \
    && python3 -m pip --python /opt/auction install --no-index --no-deps /src/dist/*.whl
# The kernels, compiled for any processor of this architecture: docs/decisions/start-up.md. -P, or those of /src would be.
ENV NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_LOCATOR_CLASSES=UserProvidedCacheLocator,auction.core.kernels.baked.Baked
RUN ["/opt/auction/bin/python3", "-P", "-c", "from auction.core.kernels import warm_up; warm_up()"]

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="auction" \
      org.opencontainers.image.description="An ad auction engine: the bidding core of an SSP." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/auction /opt/auction
ENV PATH=/opt/auction/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_LOCATOR_CLASSES=UserProvidedCacheLocator,auction.core.kernels.baked.Baked \
    AUCTION_SERVER__HOST=0.0.0.0
USER 65532:65532
# gRPC; then JSON, health and metrics.
EXPOSE 7400 7480
ENTRYPOINT ["auction"]
CMD ["serve"]
