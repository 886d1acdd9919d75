"""Pictures by id, a server on loopback that answers as a test says, and a LLaVA small enough to be made on the spot."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldscope.agent.lmm.base import ImagePart, LMMRequest, Message, TextPart
from fieldscope.agent.lmm.server_profile import forget_profiles
from fieldscope.core.errors import BrokenImageError
from fieldscope.core.fingerprint import fingerprint_pixels


class Pictures:
    """An image source in memory; counts how often each was loaded."""

    def __init__(self, **pictures: Image.Image) -> None:
        self.pictures = pictures
        self.loads: Counter[str] = Counter()

    def load(self, image_id: str) -> Image.Image:
        self.loads[image_id] += 1
        if image_id not in self.pictures:
            raise BrokenImageError(f"{image_id} is broken")
        return self.pictures[image_id]

    def pixel_hash(self, image_id: str) -> str:
        return fingerprint_pixels(self.pictures[image_id]) if image_id in self.pictures else f"no pixels of {image_id}"


@pytest.fixture
def pictures() -> Pictures:
    """Six pictures `p0` to `p5` of noise, the same in every run."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)
    return Pictures(**{f"p{n}": Image.fromarray(pixels) for n, pixels in enumerate(noise)})


Ask = Callable[..., LMMRequest]


@pytest.fixture
def ask(pictures: Pictures) -> Ask:
    """`ask("is it red ?", "p0", "p1", max_tokens=1, ...)`: the images first, the text last."""

    def make(text: str, *image_ids: str, **options: Any) -> LMMRequest:
        shown = tuple(ImagePart(image_id=i, sha256=pictures.pixel_hash(i)) for i in image_ids)
        return LMMRequest(messages=(Message(content=(*shown, TextPart(text=text))),), **options)

    return make


Reply = tuple[int, dict[str, str], bytes]


class Server:
    """A real HTTP server on loopback. `reply` maps the number of a request (from 0) and its JSON to a reply."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.reply: Callable[[int, dict[str, Any]], Reply] = lambda n, body: write_completion("Yes")
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    number = len(server.requests)
                    server.requests.append(body)
                    server.headers.append({k.lower(): v for k, v in self.headers.items()})
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                reply = server.reply(number, body)
                with server._lock:
                    server.at_once -= 1
                self._send(*reply)

            def do_GET(self) -> None:
                self._send(*server.reply(-1, {"path": self.path}))

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                try:
                    self.send_response(status)
                    for name, value in ({"Content-Type": "application/json"} | headers).items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up waiting, as some tests want

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    forget_profiles()  # a port may be used again
    made = Server()
    yield made
    made.close()


def write_completion(
    text: str | None, *positions: tuple[str, dict[str, float]], logprobs: object = ..., **choice: Any
) -> Reply:
    """A chat completion; `positions` are the tokens with their alternatives."""
    content = [
        {
            "token": token,
            "logprob": alternatives.get(token, -1.0),
            "bytes": list(token.encode()),
            "top_logprobs": [{"token": t, "logprob": v, "bytes": None} for t, v in alternatives.items()],
        }
        for token, alternatives in positions
    ]
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": ({"content": content} if content else None) if logprobs is ... else logprobs,
            }
            | choice
        ],
        "usage": {"prompt_tokens": 70, "completion_tokens": 1, "total_tokens": 71, "prompt_tokens_details": None},
    }
    return 200, {}, json.dumps(body).encode()


@pytest.fixture
def completion() -> Callable[..., Reply]:
    return write_completion


_WORDS = "yes no Yes No is it red blue a crab fox ? one two three four five snow shows on"


def make_tiny_llava(folder: Path, *, features: str = "full") -> Path:
    """A random LLaVA of a few thousand parameters, saved as transformers saves any: with CLIP tower, Llama, fast
    tokenizer, chat template and processor. `features` is the vision feature selection: "full" or "default"."""
    from fieldscope.core.compat import prepare_torchvision

    prepare_torchvision()
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    specials = ["<pad>", "<unk>", "</s>", "<image>", "<user>", "<assistant>"]
    vocabulary = {word: n for n, word in enumerate([*specials, *_WORDS.split()])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        additional_special_tokens=["<image>", "<user>", "<assistant>"],
    )
    template = (
        "{% for message in messages %}<{{ message.role }}>{% for part in message.content %}"
        "{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}{% endfor %}{% endfor %}"
        "{% if loud %} {{ loud }}{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy=features,
        num_additional_image_tokens=1,
        chat_template=template,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=2,
        ),
        image_token_index=vocabulary["<image>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy=features,
    )
    torch.manual_seed(7)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that the input matters
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("checkpoint") / "tiny-llava")


@pytest.fixture(scope="session")
def tiny_llava_without_cls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that drops the vision tower's class token, as LLaVA 1.5 does."""
    return make_tiny_llava(tmp_path_factory.mktemp("checkpoint") / "tiny-llava-default", features="default")
