/* Whatever the host's umask, the state directory is for its owner alone: directory 0700, files 0600. */
#include "common.h"

#include <dirent.h>

static void with_mask(mode_t mask) {
    const char *state = format_path("%s/state-%03o", scratch(), (unsigned)mask);
    mode_t before = umask(mask);
    mlb_engine *engine = init(SETTINGS("state_dir", state, "record.allow", "all"));
    ask_many(engine, "mask", 0, 100);
    EXPECT(mlb_flush(engine, PATIENCE_MS) == MLB_OK, "umask %03o: flush: %s", (unsigned)mask, sink_error(engine));
    EXPECT(umask(mask) == mask, "the library changed the umask");
    struct stat info;
    EXPECT(stat(state, &info) == 0 && (info.st_mode & 07777) == 0700, "umask %03o: directory %04o", (unsigned)mask, (unsigned)info.st_mode & 07777);
    /* While the store is open and after it was closed. */
    for (int closed = 0; closed < 2; closed++) {
        DIR *entries = opendir(state);
        int files = 0;
        for (struct dirent *entry; entries && (entry = readdir(entries));) {
            if (entry->d_name[0] == '.')
                continue;
            files++;
            EXPECT(stat(format_path("%s/%s", state, entry->d_name), &info) == 0 && (info.st_mode & 07777) == 0600, "umask %03o: %s: %04o", (unsigned)mask, entry->d_name,
                   (unsigned)info.st_mode & 07777);
        }
        if (entries)
            closedir(entries);
        EXPECT(files >= 2, "%d files", files);
        if (!closed)
            end(engine);
    }
    umask(before);
}

int main(void) {
    static const mode_t masks[] = {0, 022, 077};
    for (int at = 0; at < 3; at++)
        with_mask(masks[at]);
    return finish();
}
