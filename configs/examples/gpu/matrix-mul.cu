// matrix-mul: C = A x B three times: naive, through tiles in shared memory, and with a block of results in registers.
//
//   matrix-mul [--cpu] [M [N [K]]]       A is M x K, B is K x N
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

constexpr int TILE = 32;                                   // of the tiled kernel: 32 x 32 threads, one result each
constexpr int BM = 128, BN = 128, BK = 8, TM = 8, TN = 8;  // of the blocked one: 256 threads, 8 x 8 results each

// One result per thread, every operand from global memory.
__global__ void naive(const float *a, const float *b, float *c, int m, int n, int k) {
  int row = blockIdx.y * blockDim.y + threadIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= m || column >= n) return;
  float sum = 0;
  for (int i = 0; i < k; i++) sum += a[size_t(row) * k + i] * b[size_t(i) * n + column];
  c[size_t(row) * n + column] = sum;
}

// A tile of A and one of B are read once by all threads of the block, then used TILE times each.
__global__ void tiled(const float *a, const float *b, float *c, int m, int n, int k) {
  __shared__ float as[TILE][TILE], bs[TILE][TILE];
  int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
  float sum = 0;
  for (int t = 0; t < k; t += TILE) {
    as[y][x] = row < m && t + x < k ? a[size_t(row) * k + t + x] : 0.0f;
    bs[y][x] = t + y < k && column < n ? b[size_t(t + y) * n + column] : 0.0f;
    __syncthreads();
    for (int i = 0; i < TILE; i++) sum += as[y][i] * bs[i][x];
    __syncthreads();
  }
  if (row < m && column < n) c[size_t(row) * n + column] = sum;
}

// Each thread holds TM x TN results in registers: per step it reads TM + TN numbers and does TM * TN multiplications.
// A's tile lies transposed in shared memory, so that a thread's TM numbers are neighbours.
__global__ void __launch_bounds__(256) blocked(const float *a, const float *b, float *c, int m, int n, int k) {
  __shared__ float as[BK][BM], bs[BK][BN];
  int thread = threadIdx.x, row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  int ty = thread / (BN / TN), tx = thread % (BN / TN);
  float sum[TM][TN] = {}, av[TM], bv[TN];
  for (int t = 0; t < k; t += BK) {
    for (int i = thread; i < BM * BK; i += blockDim.x) {
      int row = i / BK, depth = i % BK;
      as[depth][row] = row0 + row < m && t + depth < k ? a[size_t(row0 + row) * k + t + depth] : 0.0f;
    }
    for (int i = thread; i < BK * BN; i += blockDim.x) {
      int depth = i / BN, column = i % BN;
      bs[depth][column] = t + depth < k && column0 + column < n ? b[size_t(t + depth) * n + column0 + column] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int depth = 0; depth < BK; depth++) {
#pragma unroll
      for (int i = 0; i < TM; i++) av[i] = as[depth][ty * TM + i];
#pragma unroll
      for (int j = 0; j < TN; j++) bv[j] = bs[depth][tx * TN + j];
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] += av[i] * bv[j];
    }
    __syncthreads();
  }
  for (int i = 0; i < TM; i++)
    for (int j = 0; j < TN; j++) {
      int row = row0 + ty * TM + i, column = column0 + tx * TN + j;
      if (row < m && column < n) c[size_t(row) * n + column] = sum[i][j];
    }
}

static void multiply_on_host(const float *a, const float *b, float *c, int m, int n, int k) {
  for (size_t i = 0; i < size_t(m) * n; i++) c[i] = 0;
  for (int row = 0; row < m; row++)
    for (int i = 0; i < k; i++) {
      float factor = a[size_t(row) * k + i];
      for (int column = 0; column < n; column++) c[size_t(row) * n + column] += factor * b[size_t(i) * n + column];
    }
}

// How many of some results differ from sums in double precision. All of small products, a sample of large ones.
static size_t count_wrong(const std::vector<float> &a, const std::vector<float> &b, const std::vector<float> &c, int m,
                          int n, int k) {
  size_t total = size_t(m) * n, step = total * k > (1ull << 28) ? total / 4096 | 1 : 1, wrong = 0;
  for (size_t at = 0; at < total; at += step) {
    size_t row = at / n, column = at % n;
    double sum = 0, size = 0;
    for (int i = 0; i < k; i++) {
      double product = double(a[row * k + i]) * b[size_t(i) * n + column];
      sum += product, size += std::fabs(product);
    }
    wrong += !(std::fabs(c[at] - sum) <= 1e-5 * size + 1e-6);
  }
  return wrong;
}

int main(int argc, char **argv) {
  bool cpu = argc > 1 && !std::strcmp(argv[1], "--cpu");
  if (cpu) argc--, argv++;
  int m = argc > 1 ? std::atoi(argv[1]) : 1024, n = argc > 2 ? std::atoi(argv[2]) : m, k = argc > 3 ? std::atoi(argv[3]) : m;
  if (m < 1 || n < 1 || k < 1) return std::fprintf(stderr, "sizes must be positive numbers\n"), 2;
  int devices = 0;
  if (!cpu && (cudaGetDeviceCount(&devices) != cudaSuccess || !devices))
    return std::fprintf(stderr, "no CUDA device here; --cpu computes on the host\n"), 77;

  std::vector<float> a(size_t(m) * k), b(size_t(k) * n), c(size_t(m) * n);
  unsigned state = 1;
  auto next = [&state] { return float((state = state * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1.0f; };
  for (float &value : a) value = next();
  for (float &value : b) value = next();

  double flops = 2.0 * m * n * k;
  bool correct = true;
  char name[256] = "host";
  std::vector<char> told;
  auto tell = [&](const char *kernel, double seconds) {
    size_t wrong = count_wrong(a, b, c, m, n, k);
    correct = correct && !wrong;
    char text[256];
    int length = std::snprintf(text, sizeof text, "%s\"%s\": {\"seconds\": %.9f, \"gigaflops\": %.1f, \"wrong\": %zu}",
                               told.empty() ? "" : ", ", kernel, seconds, flops / seconds / 1e9, wrong);
    told.insert(told.end(), text, text + length);
  };
  if (cpu) {
    auto begin = std::chrono::steady_clock::now();
    multiply_on_host(a.data(), b.data(), c.data(), m, n, k);
    tell("host", std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  } else {
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    std::snprintf(name, sizeof name, "%s", properties.name);
    float *da, *db, *dc;
    CHECK(cudaMalloc(&da, a.size() * sizeof(float)));
    CHECK(cudaMalloc(&db, b.size() * sizeof(float)));
    CHECK(cudaMalloc(&dc, c.size() * sizeof(float)));
    CHECK(cudaMemcpy(da, a.data(), a.size() * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(db, b.data(), b.size() * sizeof(float), cudaMemcpyHostToDevice));
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    dim3 threads(TILE, TILE), tiles((n + TILE - 1) / TILE, (m + TILE - 1) / TILE);
    dim3 blocks((n + BN - 1) / BN, (m + BM - 1) / BM);
    const char *kernels[] = {"naive", "tiled", "blocked"};
    const int rounds = 5;
    for (int kernel = 0; kernel < 3; kernel++) {
      CHECK(cudaMemset(dc, 0xff, c.size() * sizeof(float)));  // not a number: what is not written is found
      for (int round = -1; round < rounds; round++) {         // the first is not counted
        if (round == 0) CHECK(cudaEventRecord(begin));
        if (kernel == 0) naive<<<tiles, threads>>>(da, db, dc, m, n, k);
        if (kernel == 1) tiled<<<tiles, threads>>>(da, db, dc, m, n, k);
        if (kernel == 2) blocked<<<blocks, 256>>>(da, db, dc, m, n, k);
        CHECK(cudaGetLastError());
      }
      CHECK(cudaEventRecord(end));
      CHECK(cudaEventSynchronize(end));
      float milliseconds;
      CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
      CHECK(cudaMemcpy(c.data(), dc, c.size() * sizeof(float), cudaMemcpyDeviceToHost));
      tell(kernels[kernel], milliseconds / 1e3 / rounds);
    }
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaFree(da));
    CHECK(cudaFree(db));
    CHECK(cudaFree(dc));
  }
  std::printf("{\"operation\": \"multiply\", \"device\": \"%s\", \"m\": %d, \"n\": %d, \"k\": %d, \"kernels\": {%.*s}, "
              "\"correct\": %s}\n",
              name, m, n, k, int(told.size()), told.data(), correct ? "true" : "false");
  return correct ? 0 : 1;
}
