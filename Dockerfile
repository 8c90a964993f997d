# docker build -t unidiff . ; docker run --rm -v "$PWD:/runs" unidiff sample shipped:ddpm_digits
FROM python:3.12-slim
COPY . /source
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir --constraint /source/constraints.txt /source \
    && rm -rf /source
ENV OMP_NUM_THREADS=1
WORKDIR /runs
ENTRYPOINT ["unidiff"]
