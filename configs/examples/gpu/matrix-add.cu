// matrix-add: C = A + B with a grid-stride loop; checked against the host, timed with events.
//
//   matrix-add [--cpu] [ROWS [COLUMNS]]
//
// Prints one line of JSON. Exit codes: 0 right, 1 wrong, 2 a call failed, 77 no device (then --cpu computes on the host).
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include <cuda_runtime.h>

#define CHECK(call)                                                                                     \
  do {                                                                                                  \
    cudaError_t error = (call);                                                                         \
    if (error != cudaSuccess) {                                                                         \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error));    \
      std::exit(2);                                                                                     \
    }                                                                                                   \
  } while (0)

// Any number of elements with any number of threads: each takes every (threads in the grid)-th.
__global__ void add(const float *a, const float *b, float *c, size_t count) {
  size_t stride = size_t(gridDim.x) * blockDim.x;
  for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) c[i] = a[i] + b[i];
}

static void add_on_host(const float *a, const float *b, float *c, size_t count) {
  for (size_t i = 0; i < count; i++) c[i] = a[i] + b[i];
}

int main(int argc, char **argv) {
  bool cpu = argc > 1 && !std::strcmp(argv[1], "--cpu");
  if (cpu) argc--, argv++;
  long rows = argc > 1 ? std::atol(argv[1]) : 4096, columns = argc > 2 ? std::atol(argv[2]) : rows;
  if (rows < 1 || columns < 1) return std::fprintf(stderr, "sizes must be positive numbers\n"), 2;
  size_t count = size_t(rows) * columns, bytes = count * sizeof(float);
  int devices = 0;
  if (!cpu && (cudaGetDeviceCount(&devices) != cudaSuccess || !devices))
    return std::fprintf(stderr, "no CUDA device here; --cpu computes on the host\n"), 77;

  std::vector<float> a(count), b(count), c(count), expected(count);
  for (size_t i = 0; i < count; i++) a[i] = float(i % 1000) * 0.5f, b[i] = float(i % 777) * 0.25f;
  add_on_host(a.data(), b.data(), expected.data(), count);

  const int rounds = 20;
  double seconds;
  char name[256] = "host";
  if (cpu) {
    auto begin = std::chrono::steady_clock::now();
    add_on_host(a.data(), b.data(), c.data(), count);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  } else {
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    std::snprintf(name, sizeof name, "%s", properties.name);
    float *da, *db, *dc;
    CHECK(cudaMalloc(&da, bytes));
    CHECK(cudaMalloc(&db, bytes));
    CHECK(cudaMalloc(&dc, bytes));
    CHECK(cudaMemcpy(da, a.data(), bytes, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(db, b.data(), bytes, cudaMemcpyHostToDevice));
    int blocks = properties.multiProcessorCount * 16;
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    add<<<blocks, 256>>>(da, db, dc, count);  // a first time, not counted
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(begin));
    for (int i = 0; i < rounds; i++) add<<<blocks, 256>>>(da, db, dc, count);
    CHECK(cudaEventRecord(end));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaGetLastError());
    float milliseconds;
    CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    seconds = milliseconds / 1e3 / rounds;
    CHECK(cudaMemcpy(c.data(), dc, bytes, cudaMemcpyDeviceToHost));
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaFree(da));
    CHECK(cudaFree(db));
    CHECK(cudaFree(dc));
  }
  size_t wrong = 0;
  for (size_t i = 0; i < count; i++) wrong += c[i] != expected[i];
  std::printf("{\"operation\": \"add\", \"device\": \"%s\", \"rows\": %ld, \"columns\": %ld, \"seconds\": %.9f, "
              "\"gigabytes_per_second\": %.1f, \"wrong\": %zu, \"correct\": %s}\n",
              name, rows, columns, seconds, 3.0 * bytes / seconds / 1e9, wrong, wrong ? "false" : "true");
  return wrong ? 1 : 0;
}
