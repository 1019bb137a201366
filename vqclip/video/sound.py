"""The sound that a video takes over from a clip."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .ffmpeg import INSTALL, Ffmpeg

COPY = "copy"  # instead of an encoder: as it is


@dataclass(frozen=True)
class Sound:
    """The first sound track of a file, for a video: copied where its codec fits the format, else encoded."""

    path: Path
    codec: str
    seconds: float  # as long as the picture

    def options(self, ending: str) -> tuple[list[str], list[str]]:
        """Return ffmpeg's options for the input and for the output; none for a format that has no sound."""
        encoder = self._encoder(ending)
        if not encoder:
            return [], []
        safe = ["-protocol_whitelist", "file", "-t", f"{self.seconds:.6f}", "-i", f"file:{self.path.absolute()}"]
        return safe, ["-map", "0:v:0", "-map", "1:a:0", "-c:a", encoder]

    def check(self, ffmpeg: Ffmpeg, ending: str) -> None:
        """Refuse an ffmpeg that can't encode it for a format. Raises InputError."""
        encoder = self._encoder(ending)
        if encoder and encoder != COPY and encoder not in ffmpeg.encoders:
            raise InputError(f"{ffmpeg.path} has no {encoder}, for the sound of {ending}", INSTALL)

    def _encoder(self, ending: str) -> str:
        encoder, fitting = SOUNDS.get(ending, ("", ()))
        return COPY if self.codec in fitting else encoder


SOUNDS: dict[str, tuple[str, tuple[str, ...]]] = {  # ending -> ffmpeg's encoder, codecs that fit as they are
    ".mp4": ("aac", ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")),
    ".webm": ("libopus", ("opus", "vorbis")),
}
