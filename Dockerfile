# syntax=docker/dockerfile:1
# The image is the binary, the four libraries that it is linked to, and the system's certificates: no shell, no package
# manager. As process 1 a hand-over is refused (the container would end with its first process): roll out new containers.

FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake ca-certificates
WORKDIR /src
# Where it is built is not to be seen in it, so that the same binary can be built elsewhere: docs/building.md.
ENV RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=/cargo" CFLAGS="-ffile-prefix-map=/usr/local/cargo=/cargo"
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY bench bench
COPY packaging packaging
RUN cargo build --release --locked --bin tollgate \
 && cargo run --locked --package tollgate-packaging --no-default-features -- target/packaging
COPY LICENSE ./
COPY conf/container.toml conf/container.toml
COPY scripts/image-root.sh scripts/image-root.sh
RUN scripts/image-root.sh target/release/tollgate target/packaging/tollgate.cdx.json /image

FROM scratch
COPY --from=build /image /
USER 10001:10001
EXPOSE 8080 9901
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/bin/tollgate", "health"]
ENTRYPOINT ["/usr/bin/tollgate"]
CMD ["run"]
