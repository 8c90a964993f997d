"""The explorer: what `unidiff app` shows. Its pictures are plain functions; only `page` and `serve` know of gradio."""
