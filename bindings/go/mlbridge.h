#ifndef MLBRIDGE_H
#define MLBRIDGE_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define MLB_ABI_VERSION 1
#define MLB_BENIGN 0
#define MLB_MALICIOUS 1
#define MLB_ALLOW 0
#define MLB_VET 1
#define MLB_BLOCK 2
#define MLB_PASS 0
#define MLB_NXDOMAIN 1
#define MLB_NODATA 2
#define MLB_REFUSED 3
#define MLB_SINKHOLE 4
#define MLB_DROP 5
#define MLB_SOURCE_MODEL 0
#define MLB_SOURCE_OVERRIDE 1
#define MLB_SOURCE_BLOCKLIST 2
#define MLB_SOURCE_ALLOWLIST 3
#define MLB_SOURCE_POPULAR 4
#define MLB_SOURCE_SKIPPED 5
#define MLB_FLAG_CACHED 1
#define MLB_FLAG_OBSERVED 2
#define MLB_FLAG_FAIL_OPEN 4
#define MLB_FLAG_BREAKER 8
#define MLB_FLAG_DROPPED 16
#define MLB_FLAG_MESSAGE 32
typedef enum mlb_status { MLB_OK, MLB_E_INVALID, MLB_E_NAME, MLB_E_CONFIG, MLB_E_IO, MLB_E_MODEL, MLB_E_TIMEOUT, MLB_E_RANGE, MLB_E_FORKED, MLB_E_BUSY, MLB_E_PANIC } mlb_status;
typedef struct mlb_config mlb_config;
typedef struct mlb_engine mlb_engine;
typedef struct mlb_verdict { float score; uint8_t label, decision, action, source; uint32_t flags, ttl; uint8_t sinkhole4[4], sinkhole6[16]; float fpr; uint64_t model; uint8_t reserved[16]; } mlb_verdict;
typedef struct mlb_stats {
  uint64_t classified;
  uint64_t errors;
  uint64_t allowed;
  uint64_t vetted;
  uint64_t blocked;
  uint64_t by_model;
  uint64_t by_override;
  uint64_t by_blocklist;
  uint64_t by_allowlist;
  uint64_t by_popular;
  uint64_t skipped;
  uint64_t cached;
  uint64_t observed;
  uint64_t breaker;
  uint64_t fail_open;
  uint64_t panics;
  uint64_t not_recorded;
  uint64_t sampled_out;
  uint64_t coalesced;
  uint64_t dropped_queue;
  uint64_t dropped_store;
  uint64_t dropped_forked;
  uint64_t queued;
  uint64_t stored;
  uint64_t recovered;
  uint64_t delivered;
  uint64_t dead_lettered;
  uint64_t pending;
  uint64_t evicted;
  uint64_t duplicates;
  uint64_t unclean_ends;
  uint64_t store_resets;
  uint64_t store_errors;
  uint64_t sink_errors;
  uint64_t reloads;
  uint64_t queue_capacity;
} mlb_stats;
uint32_t mlb_abi_version(void);
const char *mlb_version(void);
const char *mlb_strerror(int status);
mlb_status mlb_config_new(mlb_config **out);
mlb_status mlb_config_set(mlb_config *cfg, const char *key, const char *value, char *err, size_t err_len);
mlb_status mlb_config_load(mlb_config *cfg, const char *path, char *err, size_t err_len);
void mlb_config_free(mlb_config *cfg);
mlb_status mlb_init(const mlb_config *cfg, mlb_engine **out, char *err, size_t err_len);
mlb_status mlb_reload(const mlb_engine *engine, const mlb_config *cfg, char *err, size_t err_len);
void mlb_free(mlb_engine *engine);
mlb_status mlb_attach(const char *instance, mlb_engine **out);
mlb_status mlb_classify(const mlb_engine *engine, const char *name, size_t name_len, const uint8_t *client, size_t client_len, uint16_t qtype, mlb_verdict *out);
mlb_status mlb_classify_wire(const mlb_engine *engine, const uint8_t *qname, size_t qname_len, const uint8_t *client, size_t client_len, uint16_t qtype, mlb_verdict *out);
mlb_status mlb_score_batch(const mlb_engine *engine, const char *const *names, const size_t *name_lens, size_t count, float *scores);
mlb_status mlb_explain(const mlb_engine *engine, const char *name, size_t name_len, char *buf, size_t buf_len, size_t *need);
mlb_status mlb_flush(const mlb_engine *engine, uint32_t timeout_ms);
mlb_status mlb_stats_get(const mlb_engine *engine, mlb_stats *out, size_t out_size);
mlb_status mlb_metrics(const mlb_engine *engine, char *buf, size_t buf_len, size_t *need);
mlb_status mlb_sink_error(const mlb_engine *engine, char *buf, size_t buf_len);
mlb_status mlb_message(const mlb_engine *engine, char *buf, size_t buf_len, int *level);
#ifdef __cplusplus
}
#endif
#endif
