# The daemon of a toolbox as a container. Build it in a folder with the program `waypost`:
#   docker build -f toolbox.Dockerfile -t waypost-toolbox .
# docs/toolboxes.md says how to run it: it needs the socket and the volumes of the engine, and the network and the processes of
# the machine.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY waypost /usr/local/bin/waypost
VOLUME /var/lib/waypost-toolbox
ENTRYPOINT ["waypost", "toolbox"]
CMD ["run", "--data-dir", "/var/lib/waypost-toolbox"]
