# vqclip with the bundled models. Not built yet: there was no container engine where it was written.
#   CPU:  docker build -t vqclip .
#   CUDA: docker build -t vqclip:cuda --build-arg TORCH=https://download.pytorch.org/whl/cu130 .
#   docker run --init --rm -v "$PWD/runs:/out/runs" -v vqclip-models:/models [--gpus all] vqclip generate "an owl"
FROM python:3.13-slim

ARG TORCH=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH"

COPY pyproject.toml README.md LICENSE CHANGELOG.md /src/
COPY share /src/share
COPY vqclip /src/vqclip
RUN pip install --no-cache-dir /src && rm -r /src && useradd --create-home vqclip \
 && mkdir /models /out && chown vqclip /models /out

USER vqclip
WORKDIR /out
ENV VQCLIP_MODELS=/models
VOLUME ["/models"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["vqclip"]
CMD ["--help"]
