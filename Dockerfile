# filemill for a user without rights: docs/how-to/cron.md has the rest, compose.yaml is an example.
FROM python:3.12-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[fast,heif,pdf,report,metrics]"
# The template of the report is compiled here, since the user may not write beside it.
RUN python -c "from pipeline.report.html import load_template; load_template()"
# A named volume takes its owner from the folder that it hides.
RUN install -d -o 1000 -g 1000 /state
WORKDIR /project
USER 1000:1000
# Stages lie in a folder that is mounted for reading only.
ENV PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["filemill"]
CMD ["pipeline.yaml"]
