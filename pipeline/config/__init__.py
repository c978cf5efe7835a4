"""Reads pipeline.yaml into a frozen Config, and reports all of its errors together.

document   the YAML as plain data, with the line and column of every key and value, and the complaints about it
complaint  an error or a warning at one place of the file
entry      the YAML as its classes parse it, each key by itself: `PipelineEntry`, `StageEntry`
config     the entry, checked as a whole with the signatures of its stages: `Config`, `StageConfig`
defaults   what a file that many pipelines name says of their machine: `pool`, `errors`, `timeout`, `notify`, `metrics`
edit       a value of `--set` that is applied to the document before it is parsed
catalogue  every stage that a pipeline can use by name
"""
