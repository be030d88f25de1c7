# Larder's image: one static program on nothing, for any container platform.
#
#   docker build -t larder:0.1.0 .
#
# Build arguments:
#   TARGET    Rust target triple; default: the builder's own. `docker buildx build --platform linux/arm64` builds for arm64 as it is;
#             with TARGET the same is cross-compiled, if the builder has that target and a linker for it.
#   REVISION  commit that is built, for the image's labels.
#
# glibc is linked in (`+crt-static`): its resolver needs no file but /etc/resolv.conf, which the kubelet mounts. Naming the
# target keeps build scripts and proc macros dynamic, as they must be. Relative relocations are packed, and where
# rustc links by lld, equal functions are one: a megabyte less.

ARG RUST=1.95
FROM rust:${RUST}-bookworm AS builder
ARG TARGET=""
# Pinned, so that a new release of a tool does not change the image.
ARG CARGO_AUDITABLE=0.7.2
ARG AUDITABLE2CDX=0.1.0
ENV CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
WORKDIR /build

# The list of dependencies goes into the program (`cargo audit bin`, syft and trivy read it there) and beside it, as CycloneDX.
RUN cargo install --locked --root /tools "cargo-auditable@${CARGO_AUDITABLE}" \
    && cargo install --locked --root /tools "auditable2cdx@${AUDITABLE2CDX}"
ENV PATH=/tools/bin:$PATH

# Dependencies alone: this layer is built again only when they change. Tests and benchmarks are not in the context, so the
# manifest must not name them.
COPY Cargo.toml Cargo.lock ./
RUN awk '/^\[/ { drop = /^\[\[(test|bench)\]\]/ } !drop' Cargo.toml > kept && mv kept Cargo.toml \
    && target="${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}" && printf %s "$target" > /target \
    && case "$target" in x86_64-*) fold=', "-Clink-arg=-Wl,--icf=all"' ;; *) fold= ;; esac \
    && mkdir .cargo && printf '[target.%s]\nrustflags = ["-Ctarget-feature=+crt-static", "-Clink-arg=-Wl,-z,pack-relative-relocs"%s]\n' "$target" "$fold" > .cargo/config.toml \
    && mkdir src && echo 'fn main() {}' | tee src/main.rs > build.rs && touch src/lib.rs \
    && cargo auditable build --locked --profile image --bin larder --target "$target" \
    && rm -r src build.rs

COPY build.rs ./
COPY proto proto
COPY src src
# Newer than the stubs of before, whatever times the sources came with.
RUN find src build.rs proto -exec touch {} + \
    && cargo auditable build --locked --profile image --bin larder --target "$(cat /target)" \
    && mkdir -p /image/etc/ssl/certs /image/usr/share/larder \
    && cp "target/$(cat /target)/image/larder" /image/larder \
    && auditable2cdx /image/larder > /image/usr/share/larder/larder.cdx.json \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/
COPY LICENSE /image/usr/share/larder/

FROM scratch
ARG REVISION=""
LABEL org.opencontainers.image.title="larder" \
      org.opencontainers.image.description="A Kubernetes-native, multi-tenant cache service over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="scratch"
COPY --from=builder /image /
# No account of this number exists anywhere; the chart asks for the same.
USER 65532:65532
EXPOSE 7070 7071 7072 7073
ENTRYPOINT ["/larder"]
CMD ["serve"]
