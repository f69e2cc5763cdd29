# syntax=docker/dockerfile:1
# As process 1 a hand-over is refused (the container would end with its first process): roll out new containers instead.

FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY bench bench
COPY tests tests
# A member of the workspace, though nothing of it is built here.
COPY bench/load bench/load
RUN cargo build --release --locked --bin tollgate

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tollgate \
 && install --directory --owner=tollgate --mode=0700 /run/tollgate
COPY --from=build /src/target/release/tollgate /usr/bin/tollgate
COPY conf/minimal.toml /etc/tollgate/tollgate.toml
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tollgate"]
CMD ["run"]
