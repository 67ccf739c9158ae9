/* What a power cut leaves of a data folder: preloaded into card4e by `power.rs` beside this.
 *
 * Every write below CARD4E_POWERCUT_DATA is done at once, and what it replaced is kept below
 * CARD4E_POWERCUT_KEPT until the file, or for names the folder, is synced. After `kill -9` the test puts
 * back some of what was never synced: that is what a disk without power may hold.
 *
 * Kept by inode number N:  N.file   a hard link to the file, whatever becomes of its name
 *                          N.undo   records of struct undo, each followed by the bytes replaced
 * and for the folder:      names    lines "made PATH", "moved FROM TO KEPT", "gone PATH KEPT"
 *                          kept-M   a hard link to a file that lost its name; KEPT is "-" if there was none
 * With a file `lie` there, nothing is ever synced, as with a disk that only says so.
 *
 * Memory that is mapped is not seen: the index of SQLite's log (-shm), which a start builds anew. Not
 * kept either: sockets, and what other processes write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct undo { uint64_t offset, bytes, length; };
struct tracked { ino_t inode; int file, undo; };

/* Far more than a data folder has in one life. */
static struct tracked tracked[4096];
static size_t count, kept_names;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static const char *data, *kept;
static dev_t device;
static ino_t folder_inode;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);

static void die(const char *what) {
    fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
    abort();
}

__attribute__((constructor)) static void begin(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    data = getenv("CARD4E_POWERCUT_DATA");
    kept = getenv("CARD4E_POWERCUT_KEPT");
    struct stat folder;
    if (!data || !kept || stat(data, &folder)) die("CARD4E_POWERCUT_DATA and CARD4E_POWERCUT_KEPT are folders");
    device = folder.st_dev;
    folder_inode = folder.st_ino;
}

static int is_ours(const char *path) {
    size_t length = strlen(data), own = strlen(path);
    int is_index = own > 4 && !strcmp(path + own - 4, "-shm");
    return !strncmp(path, data, length) && path[length] == '/' && !is_index;
}

static char *in_kept(char *path, const char *form, unsigned long number) {
    int used = snprintf(path, PATH_MAX, "%s/", kept);
    snprintf(path + used, PATH_MAX - used, form, number);
    return path;
}

static struct tracked *find(ino_t inode) {
    for (size_t at = 0; at < count; at++)
        if (tracked[at].inode == inode) return &tracked[at];
    return NULL;
}

/* The file behind a descriptor, if it is one of ours. */
static struct tracked *behind(int fd) {
    struct stat is;
    if (!data || fstat(fd, &is) || is.st_dev != device || !S_ISREG(is.st_mode)) return NULL;
    return find(is.st_ino);
}

static struct tracked *track(const char *path) {
    struct stat is;
    char name[PATH_MAX];
    if (lstat(path, &is) || !S_ISREG(is.st_mode)) return NULL;
    struct tracked *known = find(is.st_ino);
    if (known) return known;
    if (count == sizeof tracked / sizeof *tracked) die("too many files");
    if (link(path, in_kept(name, "%lu.file", is.st_ino)) && errno != EEXIST) die("link");
    struct tracked *new = &tracked[count++];
    new->inode = is.st_ino;
    new->file = real_open(name, O_RDWR | O_CLOEXEC);
    new->undo = real_open(in_kept(name, "%lu.undo", is.st_ino), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (new->file < 0 || new->undo < 0) die("open");
    return new;
}

/* Keeps what a write of so many bytes is about to replace. */
static void keep(struct tracked *file, off64_t offset, size_t bytes) {
    struct stat is;
    if (fstat(file->file, &is)) die("fstat");
    size_t old = offset < is.st_size ? (size_t)(is.st_size - offset) : 0;
    struct undo undo = { offset, old < bytes ? old : bytes, is.st_size };
    char *record = malloc(sizeof undo + undo.bytes);
    if (!record) die("malloc");
    memcpy(record, &undo, sizeof undo);
    if (pread(file->file, record + sizeof undo, undo.bytes, offset) != (ssize_t)undo.bytes) die("pread");
    size_t all = sizeof undo + undo.bytes;
    if (real_write(file->undo, record, all) != (ssize_t)all) die("write");
    free(record);
}

static void note(const char *form, const char *one, const char *two, const char *three) {
    char name[PATH_MAX], line[3 * PATH_MAX];
    int fd = real_open(in_kept(name, "names", 0), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int length = snprintf(line, sizeof line, form, one, two, three);
    if (fd < 0 || real_write(fd, line, length) != length) die("names");
    close(fd);
}

/* A name for a file that is about to lose its own; "-" if there is none. */
static const char *save(const char *path, char *name) {
    snprintf(name, 64, "kept-%d-%zu", (int)getpid(), kept_names++);
    char at[PATH_MAX];
    snprintf(at, sizeof at, "%s/%s", kept, name);
    if (link(path, at)) strcpy(name, "-");
    return name;
}

static int lies(void) {
    char name[PATH_MAX];
    return !access(in_kept(name, "lie", 0), F_OK);
}

static int opened(const char *path, int flags, mode_t mode) {
    if (!data || !is_ours(path)) return real_open(path, flags, mode);
    pthread_mutex_lock(&turn);
    int is_new = access(path, F_OK) != 0;
    if (is_new && flags & O_CREAT) note("made %s\n", path, "", "");
    if (!is_new && flags & O_TRUNC) {
        struct tracked *file = track(path);
        if (file) keep(file, 0, SIZE_MAX);
    }
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && flags & (O_WRONLY | O_RDWR)) track(path);
    pthread_mutex_unlock(&turn);
    return fd;
}

#define MODE(flags) mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode); }

ssize_t write(int fd, const void *from, size_t bytes) {
    pthread_mutex_lock(&turn);
    struct tracked *file = behind(fd);
    if (file) {
        struct stat is;
        int appends = fcntl(fd, F_GETFL) & O_APPEND;
        keep(file, appends && !fstat(fd, &is) ? is.st_size : lseek64(fd, 0, SEEK_CUR), bytes);
    } else pthread_mutex_unlock(&turn);
    ssize_t wrote = real_write(fd, from, bytes);
    if (file) pthread_mutex_unlock(&turn);
    return wrote;
}

ssize_t pwrite64(int fd, const void *from, size_t bytes, off64_t offset) {
    pthread_mutex_lock(&turn);
    struct tracked *file = behind(fd);
    if (file) keep(file, offset, bytes);
    ssize_t wrote = real_pwrite(fd, from, bytes, offset);
    pthread_mutex_unlock(&turn);
    return wrote;
}
ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset) { return pwrite64(fd, from, bytes, offset); }

int ftruncate64(int fd, off64_t length) {
    pthread_mutex_lock(&turn);
    struct tracked *file = behind(fd);
    if (file) keep(file, length, SIZE_MAX);
    int done = real_ftruncate(fd, length);
    pthread_mutex_unlock(&turn);
    return done;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

/* What was kept of a file goes, or of the names in a folder. The disk itself is not under test, and faster
 * without it. */
static int synced(int fd) {
    struct stat is;
    pthread_mutex_lock(&turn);
    struct tracked *file = behind(fd);
    char name[PATH_MAX];
    int is_folder = data && !file && !fstat(fd, &is) && is.st_ino == folder_inode && is.st_dev == device;
    if (!lies()) {
        if (file && real_ftruncate(file->undo, 0)) die("ftruncate");
        if (is_folder) real_unlink(in_kept(name, "names", 0));
    }
    pthread_mutex_unlock(&turn);
    return file || is_folder ? 0 : real_fsync(fd);
}
int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }

int rename(const char *from, const char *to) {
    if (!data || !is_ours(to)) return real_rename(from, to);
    pthread_mutex_lock(&turn);
    char name[64];
    note("moved %s %s %s\n", from, to, save(to, name));
    int done = real_rename(from, to);
    pthread_mutex_unlock(&turn);
    return done;
}

int unlink(const char *path) {
    struct stat is;
    if (!data || !is_ours(path) || lstat(path, &is) || !S_ISREG(is.st_mode)) return real_unlink(path);
    pthread_mutex_lock(&turn);
    char name[64];
    note("gone %s %s\n", path, save(path, name), "");
    int done = real_unlink(path);
    pthread_mutex_unlock(&turn);
    return done;
}
