"""Clips for tests, made by the ffmpeg that is used."""

import subprocess
from pathlib import Path

import av
import torch
from PIL import Image, ImageDraw

from vqclip.video.ffmpeg import find_ffmpeg


def make_clip(path, count=6, *, size=(64, 48), fps="12", sound=True, draw=None):
    """Write a clip: a white disk that moves over a ground of two colours, and a tone."""
    path = Path(path)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", fps, "-i", "-"]
    command = [find_ffmpeg().path, "-v", "error", "-y", *raw]
    if sound:
        command += ["-f", "lavfi", "-i", "sine=f=440:r=44100", "-shortest"]
    with subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE) as process:
        for k in range(count):
            process.stdin.write((draw or disk)(k, size).tobytes())
        process.stdin.close()
    assert process.returncode == 0
    return path


def disk(k, size):
    width, height = size
    picture = Image.new("RGB", size, (40, 90, 180))
    pen = ImageDraw.Draw(picture)
    pen.rectangle([0, height // 2, width, height], fill=(60, 140, 60))
    x, r = width // 4 + 2 * k, height // 5
    pen.ellipse([x - r, height // 2 - r, x + r, height // 2 + r], fill="white")
    return picture


def facts(path):
    """Return (frames, size, seconds of the picture, frames a second, sound's codec and seconds) by PyAV."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        count, ends, size, last = 0, 0.0, None, None
        for packet in film.demux(stream):
            if packet.pts is not None:
                ends = max(ends, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            for last in packet.decode():
                count, size = count + 1, (last.width, last.height)
        rate = stream.average_rate
    with av.open(str(path)) as film:
        heard = film.streams.audio
        samples = sum(frame.samples for frame in film.decode(audio=0)) if heard else 0
        sound = (heard[0].codec_context.name, samples / heard[0].rate) if heard else None
    return count, size, ends, rate, sound


def apart(one, two):
    """Return the mean difference of two pictures, 0..1."""
    from vqclip.files.images import to_tensor

    return float(torch.abs(to_tensor(one) - to_tensor(two)).mean())
