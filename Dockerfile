# Two images of one build, each with nothing in it but its programs:
#
#   docker build --target operator -t REGISTRY/cupcake-operator:0.1.0 .
#   docker build --target agent    -t REGISTRY/cupcake-agent:0.1.0 .
#
# Static programs on an empty image: there is no shell to break into and no library to keep up to date, and the runner has to run on
# whatever the nodes run. The API server's certificate comes with the pod's token, so no authorities are needed either.
# tests/images/assemble makes the same images from the last two stages without Docker; it knows the instructions that stand there.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
ENV CARGO_PROFILE_RELEASE_STRIP=symbols RUSTFLAGS="-C target-feature=+crt-static"
RUN triple="$(uname -m)-unknown-linux-gnu" \
    && cargo build --release --locked --target "$triple" -p cupcake-operator -p cupcake-agent -p cupcake-host --bins \
    && install -D --mode=0755 --target-directory=/out \
       "target/$triple/release/cupcake-operator" "target/$triple/release/cupcake-agent" "target/$triple/release/cupcake-host"

FROM scratch AS operator
LABEL org.opencontainers.image.title="cupcake-operator"
LABEL org.opencontainers.image.description="Upgrades kubeadm clusters in place: the operator"
LABEL org.opencontainers.image.licenses="MIT"
COPY --from=build /out/cupcake-operator /cupcake-operator
USER 65532:65532
ENTRYPOINT ["/cupcake-operator"]

FROM scratch AS agent
LABEL org.opencontainers.image.title="cupcake-agent"
LABEL org.opencontainers.image.description="Upgrades kubeadm clusters in place: the agent of a node, and the runner that it puts there"
LABEL org.opencontainers.image.licenses="MIT"
COPY --from=build /out/cupcake-agent /cupcake-agent
COPY --from=build /out/cupcake-host /cupcake-host
# systemd takes orders from uid 0 alone.
USER 0:0
ENTRYPOINT ["/cupcake-agent"]
