"""What to change on a server: the flags that more than one check names."""

TEMPLATE = (
    "vLLM: serve a reranker with --runner pooling and its own --chat-template; the original Qwen3-VL-Reranker needs "
    "qwen3_vl_reranker.jinja of vLLM's examples (pooling/score/template) and --hf-overrides "
    '\'{"architectures": ["Qwen3VLForSequenceClassification"], "classifier_from_token": ["no", "yes"], '
    '"is_original_qwen3_reranker": true}\''
)
VISION = (
    "serve a reranker that takes images, such as Qwen3-VL-Reranker or jina-reranker-m0 (vLLM: --limit-mm-per-prompt "
    "'{\"image\": 2}'), and check that images reach it as content parts and not as strings"
)
PRECISION = "vLLM: --dtype float32 or VLLM_BATCH_INVARIANT=1; other servers: check that padding is masked"
