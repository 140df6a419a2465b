# The image: docker build -t ayova .
# It wants /etc/ayova/ayova.yaml and, where that says so, secrets as files; it writes to /data only. docs/operations.md
# says how it is run.
ARG RUST=1.95

FROM rust:${RUST}-bookworm AS build
ARG FEATURES=otlp
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    FEATURES="${FEATURES}" deploy/build.sh /image

# Debian's C library and the certificate authorities; no shell. The build stage is the same Debian, for the library's sake.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/usr/ /usr/
# Before there is a volume: what docker makes anew for this path inherits its owner.
COPY --from=build --chown=65532:65532 /image/data /data
USER 65532:65532
VOLUME ["/data"]
# The app's listener and the callbacks'. The admin listener is not for others.
EXPOSE 8080 8443
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/ayova", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/ayova"]
CMD ["run", "--config", "/etc/ayova/ayova.yaml"]
