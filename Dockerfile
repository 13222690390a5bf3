FROM python:3.13-slim AS build
ENV PIP_CONSTRAINT=/src/constraints.txt \
    PIP_BUILD_CONSTRAINT=/src/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /dist . \
    && python -m venv /opt/smtpguard \
    && /opt/smtpguard/bin/pip install /dist/*.whl

FROM python:3.13-slim
ENV PATH=/opt/smtpguard/bin:$PATH \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/smtpguard /opt/smtpguard
# The settings are to be mounted over this; the default store, smtpguard.db, lies in the working directory.
RUN useradd --system --uid 2525 --home-dir /var/lib/smtpguard --create-home smtpguard \
    && mkdir /etc/smtpguard \
    && printf '[smtp]\nlisten = "0.0.0.0:2525"\n' >/etc/smtpguard/smtpguard.toml
USER smtpguard
WORKDIR /var/lib/smtpguard
VOLUME /var/lib/smtpguard
EXPOSE 2525 8025 8027
STOPSIGNAL SIGTERM
# At web.listen; settings that empty it want another check.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s CMD ["smtpguard", "readyz"]
ENTRYPOINT ["smtpguard"]
CMD ["serve"]
