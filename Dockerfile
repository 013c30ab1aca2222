# dislobench in a container; docs/cluster.md tells how to use it.
#
#   docker build -t dislobench .                       the command
#   docker build --target test .                       the tests

FROM python:3.11-slim AS installed
RUN useradd --create-home --uid 1000 dislobench
COPY --chown=dislobench . /opt/dislobench
# another user than this one may run the image: Apptainer takes the one who starts it
RUN chmod -R a+rX /opt/dislobench && mkdir /work && chown dislobench /work
USER dislobench
WORKDIR /opt/dislobench
RUN python3 -m venv .venv && .venv/bin/pip install -q --no-cache-dir -e '.[test]'
# one thread for linear algebra in every process; caches of libraries where every user may write
ENV PATH=/opt/dislobench/.venv/bin:$PATH OMP_NUM_THREADS=1 MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache

FROM installed AS test
RUN .venv/bin/pytest -n 2 --dist loadfile

FROM installed AS command
WORKDIR /work
ENTRYPOINT ["dislobench"]
CMD ["--help"]
