# The server alone. Mount a configuration at /etc/arch/arch_config.yaml; docker-compose.yml shows how.
# tests/install runs what is run here, in a folder that holds only what is copied here.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY ext_proc ext_proc
RUN python -m venv /opt/arch
RUN /opt/arch/bin/python -m pip install --no-cache-dir '.[compression,redis]'

FROM python:3.11-slim
COPY --from=build /opt/arch /opt/arch
ENV PATH=/opt/arch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Nobody's number. The file system may be read-only: the server writes only where rollouts are kept, if it has
# some. Mount a volume for rollouts.store then, or name a Redis there.
USER 65532:65532
EXPOSE 50051 9902
HEALTHCHECK --start-period=10s CMD ["arch-ext-proc", "health", "/etc/arch/arch_config.yaml"]
ENTRYPOINT ["arch-ext-proc"]
CMD ["serve", "/etc/arch/arch_config.yaml", "--log-format", "json"]
