# syntax=docker/dockerfile:1
# Two stages: the first builds dist/ledge from this tree, the second holds it and bubblewrap, and nothing to build with.
#
#   docker build -t ledge .
#   docker run -p 8980:8980 -v ledge:/var/cache/ledge --security-opt seccomp=unconfined --security-opt systempaths=unconfined ledge
#
# Without the two options Docker forbids what sandboxes are made of: ledge then says so and is a cache. Actions see this image's
# file system: add your compilers in an image of your own (FROM ledge).

FROM node:22-bookworm-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils git libatomic1 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
# The image's Node runs npm only; the build uses the Node that npm installs.
RUN npm ci
COPY . .
RUN npm run build && dist/ledge --version

FROM debian:12-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap libatomic1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 8980 --home-dir /var/cache/ledge --create-home ledge \
 && chmod 0711 /var/cache/ledge
COPY --from=build /src/dist/ledge /usr/local/bin/ledge
USER ledge
VOLUME /var/cache/ledge
EXPOSE 8980
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/ledge"]
CMD ["serve", "--listen", "0.0.0.0:8980", "--data-dir", "/var/cache/ledge/data"]
