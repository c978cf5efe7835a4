"""From YAML to a frozen Config, with every complaint at once.

document   the YAML as plain data, with the line and column of every key and value, and the complaints so far
entry      what the YAML says, parsed by the vocabulary: `PipelineEntry`, `StageEntry`
config     the entry, checked as a whole: `Config`, `StageConfig`
catalogue  every stage that a pipeline can use by name
"""
