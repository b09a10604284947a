/* Prints the bits of each name's score, asked of the library directly from C: what the Go binding must give too.
 * Arguments: a model directory, then names. */
#include <mlbridge.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  char err[512] = "";
  mlb_config *cfg;
  mlb_engine *engine;
  if (argc < 2 || mlb_config_new(&cfg) != MLB_OK) return 2;
  if (mlb_config_set(cfg, "model.path", argv[1], err, sizeof err) != MLB_OK ||
      mlb_init(cfg, &engine, err, sizeof err) != MLB_OK) {
    fprintf(stderr, "%s\n", err);
    return 1;
  }
  mlb_config_free(cfg);
  for (int i = 2; i < argc; i++) {
    const char *name = argv[i];
    size_t len = strlen(name);
    float score;
    uint32_t bits;
    if (mlb_score_batch(engine, &name, &len, 1, &score) != MLB_OK) return 1;
    memcpy(&bits, &score, sizeof bits);
    printf("%08x\n", bits);
  }
  mlb_free(engine);
  return 0;
}
