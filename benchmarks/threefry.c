/* The sum of scores drawn with replacement, as plain loops: Threefry-2x32 with 20 rounds, key (seed, stream), counter
 * (trial, pair of seats). Written so that a compiler vectorises it; no intrinsics. */
#include <stdint.h>

#define LANES 256

#define ROUND(by) a += b, b = ((b << by) | (b >> (32 - by))) ^ a;
#define EVEN ROUND(13) ROUND(15) ROUND(26) ROUND(6)
#define ODD ROUND(17) ROUND(29) ROUND(16) ROUND(24)
#define KEY(first, second, group) a += first, b += second + group;

/* Scores of a pair of seats. The index is the high half of word times size, exact for sizes below 2^16. */
static inline int32_t pair_of(uint32_t seed, uint32_t stream, uint32_t trial, uint32_t pair,
                              const int32_t *restrict table, uint32_t size) {
  const uint32_t third = seed ^ stream ^ 0x1BD11BDAu;
  uint32_t a = trial + seed, b = pair + stream;
  EVEN KEY(stream, third, 1) ODD KEY(third, seed, 2) EVEN KEY(seed, stream, 3) ODD KEY(stream, third, 4)
  EVEN KEY(third, seed, 5)
  a = ((a >> 16) * size + ((a & 0xFFFF) * size >> 16)) >> 16;
  b = ((b >> 16) * size + ((b & 0xFFFF) * size >> 16)) >> 16;
  return table[(int32_t)a] + table[(int32_t)b];
}

/* One trial after the other. */
void by_trial(uint32_t seed, uint32_t stream, uint32_t first, uint32_t trials, uint32_t clients,
              const int32_t *restrict table, uint32_t size, int32_t *restrict out) {
  for (uint32_t t = 0; t < trials; t++) {
    int32_t total = 0;
    for (uint32_t pair = 0; pair < clients / 2; pair++) total += pair_of(seed, stream, first + t, pair, table, size);
    out[t] = total;
  }
}

/* Many trials abreast; a multiple of LANES. */
void by_lane(uint32_t seed, uint32_t stream, uint32_t first, uint32_t trials, uint32_t clients,
             const int32_t *restrict table, uint32_t size, int32_t *restrict out) {
  for (uint32_t t = 0; t < trials; t += LANES) {
    int32_t total[LANES] = {0};
    for (uint32_t pair = 0; pair < clients / 2; pair++)
      for (uint32_t lane = 0; lane < LANES; lane++)
        total[lane] += pair_of(seed, stream, first + t + lane, pair, table, size);
    for (uint32_t lane = 0; lane < LANES; lane++) out[t + lane] = total[lane];
  }
}
