# syntax=docker/dockerfile:1
# The program in an image without shell or package manager, as user 65532. docs/deployment.md says what of this
# has been proved and what not.
FROM docker.io/library/rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock rustfmt.toml ./
COPY src src
COPY manifests manifests
# Tests and benches are not built here, but the manifest names their files.
RUN mkdir -p tests/benches && touch tests/all.rs && echo 'fn main() {}' > tests/benches/ready.rs
RUN cargo build --locked --profile dist --bin portalkeeper

# glibc, libgcc and certificates, and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /source/target/dist/portalkeeper /portalkeeper
USER 65532:65532
EXPOSE 5000 9090
ENTRYPOINT ["/portalkeeper"]
CMD ["run", "--data", "/data"]
