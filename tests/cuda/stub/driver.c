/* A CUDA driver library with no GPU behind it: libcuda.so.1 for tests of the host side.

   Device memory is memory of the host, kernels do nothing, and what they are launched with is checked as a driver and a
   device would have it: the sizes of a launch against the compiled kernel and the device, each pointer among the
   arguments against the memory that is allocated. What a driver refuses is refused here with its error. What it would
   let pass and a device would suffer (an array that ends beyond its memory or begins in freed memory, arguments of
   another size) is a fault: a sentence that `stub_faults` returns. Launches are kept, and `stub_launches` counts them.

   Freed memory stays reserved and cannot be accessed, so that no later array comes to lie there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef int Result; /* CUresult */
enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, OUT_OF_RESOURCES = 701, TOO_LARGE_TOGETHER = 720,
    UNSUPPORTED = 801, CAPTURE_IMPLICIT = 906,
};

/* The device: an H200. By the numbers of CUdevice_attribute; what is not listed is 0. STUB_CAPABILITY=120 changes one. */
enum { MAX_THREADS = 1024, SHARED = 48 << 10, SHARED_OPTIN = 227 << 10, SMS = 132, REGISTERS = 65536, SM_THREADS = 2048 };
static const size_t TOTAL = (size_t)141 << 30;
static int capability = 90;

static int attribute_of_device(int number) {
    switch (number) {
    case 1: case 2: case 3: case 5: return number == 3 ? 1024 : number == 5 ? 0x7fffffff : MAX_THREADS;
    case 4: return 64; /* block z */
    case 6: case 7: return 65535;
    case 8: return SHARED;
    case 10: return 32; /* warp */
    case 12: case 82: return REGISTERS;
    case 13: case 31: case 41: return 1; /* clock, concurrent kernels, unified addressing */
    case 16: return SMS;
    case 39: return SM_THREADS;
    case 75: return capability / 10;
    case 76: return capability % 10;
    case 81: return SHARED_OPTIN + 1024; /* of a multiprocessor */
    case 95: return 1; /* cooperative launch */
    case 97: return SHARED_OPTIN;
    case 106: return 32; /* blocks of a multiprocessor */
    default: return 0;
    }
}

/* Faults and counts, under one lock with all that follows. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char faults[1 << 16];
static size_t faults_end;

static Result fault(Result code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (faults_end + 512 < sizeof faults) {
        faults_end += vsnprintf(faults + faults_end, 500, format, args);
        faults_end = faults_end < sizeof faults - 2 ? faults_end : sizeof faults - 2;
        faults[faults_end++] = '\n';
        faults[faults_end] = 0;
    }
    va_end(args);
    return code;
}

/* All faults since the last call, a line each. */
const char *stub_faults(void) {
    static char said[sizeof faults];
    memcpy(said, faults, faults_end + 1);
    faults_end = 0;
    faults[0] = 0;
    return said;
}

/* Memory. */
typedef struct { uintptr_t start; size_t size; int live; } Block;
static Block *blocks;
static int n_blocks, room_blocks;
static size_t used;

static Block *block_at(uintptr_t p) { /* that p lies in; blocks are in order of their addresses */
    int low = 0, high = n_blocks;
    while (low < high) {
        int middle = (low + high) / 2;
        if (blocks[middle].start <= p) low = middle + 1; else high = middle;
    }
    if (low == 0) return NULL;
    Block *b = &blocks[low - 1];
    return p < b->start + (b->size ? b->size : 1) ? b : NULL;
}

static Result inside(const char *who, uintptr_t p, size_t bytes) {
    Block *b = block_at(p);
    if (bytes == 0) return OK;
    if (!b) return fault(INVALID_VALUE, "%s: %#zx is no device memory", who, (size_t)p);
    if (!b->live) return fault(INVALID_VALUE, "%s: %#zx lies in memory that was freed", who, (size_t)p);
    if (p + bytes > b->start + b->size)
        return fault(INVALID_VALUE, "%s: %zu bytes begin %zu bytes into an allocation of %zu", who, bytes,
                     (size_t)(p - b->start), b->size);
    return OK;
}

#define LOCKED(...) do { pthread_mutex_lock(&lock); __VA_ARGS__; pthread_mutex_unlock(&lock); } while (0)

Result cuMemAlloc_v2(uintptr_t *out, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    if (used + bytes > TOTAL) return OUT_OF_MEMORY;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    if (n_blocks == room_blocks) blocks = realloc(blocks, (room_blocks = 2 * room_blocks + 64) * sizeof *blocks);
    int at = n_blocks++;
    while (at > 0 && blocks[at - 1].start > (uintptr_t)p) blocks[at] = blocks[at - 1], at--;
    blocks[at] = (Block){(uintptr_t)p, bytes, 1};
    used += bytes;
    pthread_mutex_unlock(&lock);
    *out = (uintptr_t)p;
    return OK;
}

Result cuMemFree_v2(uintptr_t p) {
    Result code = OK;
    if (p == 0) return OK;
    pthread_mutex_lock(&lock);
    Block *b = block_at(p);
    if (!b || b->start != p || !b->live) code = fault(INVALID_VALUE, "cuMemFree: %#zx is no live allocation", (size_t)p);
    else {
        b->live = 0;
        used -= b->size;
        mmap((void *)p, b->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    *free_bytes = TOTAL - used;
    *total = TOTAL;
    return OK;
}

/* Contexts: one of the device, current to a thread or not. */
static _Thread_local int depth; /* of this thread's stack, which holds the one context or none */
static int initialized;
#define CONTEXT ((void *)0xC0)
#define NEED_CONTEXT if (!depth) return INVALID_CONTEXT

Result cuInit(unsigned flags) {
    const char *asked = getenv("STUB_CAPABILITY");
    if (asked) capability = atoi(asked);
    initialized = 1;
    return OK;
}
Result cuDriverGetVersion(int *version) {
    const char *asked = getenv("STUB_VERSION");
    *version = asked ? atoi(asked) : 13000;
    return OK;
}
Result cuDeviceGetCount(int *n) { *n = 1; return initialized ? OK : NOT_INITIALIZED; }
Result cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal == 0 ? OK : INVALID_DEVICE; }
Result cuDeviceGetName(char *name, int room, int device) { snprintf(name, room, "stub of an H200"); return OK; }
Result cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 7, 16); return OK; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = TOTAL; return OK; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute_of_device(attribute); return OK; }
Result cuDevicePrimaryCtxRetain(void **context, int device) { *context = CONTEXT; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
Result cuDevicePrimaryCtxReset_v2(int device) { return OK; }
Result cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return OK; }
Result cuCtxGetCurrent(void **context) { *context = depth ? CONTEXT : NULL; return OK; }
Result cuCtxSetCurrent(void *context) { depth = context != NULL; return OK; }
Result cuCtxPushCurrent_v2(void *context) { if (context != CONTEXT) return INVALID_CONTEXT; depth++; return OK; }
Result cuCtxPopCurrent_v2(void **context) { NEED_CONTEXT; depth--; if (context) *context = CONTEXT; return OK; }
Result cuCtxGetDevice(int *device) { NEED_CONTEXT; *device = 0; return OK; }
Result cuCtxGetId(void *context, unsigned long long *id) { *id = 1; return OK; }
Result cuCtxGetFlags(unsigned *flags) { *flags = 0; return OK; }

/* Streams and captures. A stream is a number; a capture counts its launches. */
typedef struct { int live, capturing; int launches; } Stream;
enum { FIRST_STREAM = 16, STREAMS = 1 << 14 };
static Stream streams[STREAMS];
static int n_streams, n_capturing;

static Stream *stream_of(uintptr_t s) {
    if (s < FIRST_STREAM || s >= FIRST_STREAM + (uintptr_t)n_streams) return NULL;
    return streams[s - FIRST_STREAM].live ? &streams[s - FIRST_STREAM] : NULL;
}
static int is_stream(uintptr_t s) { return s <= 2 || stream_of(s); } /* the default one by its three names */

Result cuStreamCreate(uintptr_t *out, unsigned flags) {
    NEED_CONTEXT;
    LOCKED(streams[n_streams] = (Stream){1, 0, 0}; *out = FIRST_STREAM + n_streams++);
    return n_streams < STREAMS ? OK : OUT_OF_MEMORY;
}
Result cuStreamCreateWithPriority(uintptr_t *out, unsigned flags, int priority) { return cuStreamCreate(out, flags); }
Result cuStreamDestroy_v2(uintptr_t s) {
    if (!stream_of(s)) return fault(INVALID_HANDLE, "cuStreamDestroy: no stream");
    stream_of(s)->live = 0;
    return OK;
}
Result cuStreamSynchronize(uintptr_t s) {
    if (!is_stream(s)) return fault(INVALID_HANDLE, "cuStreamSynchronize: no stream");
    return n_capturing ? fault(CAPTURE_IMPLICIT, "cuStreamSynchronize in a capture") : OK;
}
Result cuCtxSynchronize(void) {
    NEED_CONTEXT;
    return n_capturing ? fault(CAPTURE_IMPLICIT, "cuCtxSynchronize in a capture") : OK;
}
Result cuStreamGetCtx(uintptr_t s, void **context) { *context = CONTEXT; return is_stream(s) ? OK : INVALID_HANDLE; }
Result cuStreamGetDevice(uintptr_t s, int *device) { *device = 0; return is_stream(s) ? OK : INVALID_HANDLE; }
Result cuStreamIsCapturing(uintptr_t s, int *status) {
    *status = stream_of(s) && stream_of(s)->capturing;
    return is_stream(s) ? OK : INVALID_HANDLE;
}

typedef struct { int launches; } Graph;
Result cuStreamBeginCapture_v2(uintptr_t s, int mode) {
    if (!stream_of(s)) return UNSUPPORTED; /* the default stream cannot be captured */
    if (stream_of(s)->capturing) return 905;
    *stream_of(s) = (Stream){1, 1, 0};
    n_capturing++;
    return OK;
}
Result cuStreamEndCapture(uintptr_t s, Graph **graph) {
    Stream *stream = stream_of(s);
    if (!stream || !stream->capturing) return 903;
    stream->capturing = 0;
    n_capturing--;
    *graph = malloc(sizeof **graph);
    (*graph)->launches = stream->launches;
    return OK;
}
Result cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    return OK;
}
Result cuGraphDestroy(Graph *graph) { free(graph); return OK; }
Result cuGraphExecDestroy(Graph *executable) { free(executable); return OK; }

/* Events: a time. */
typedef struct { double ms; int recorded; } Event;
Result cuEventCreate(Event **event, unsigned flags) { NEED_CONTEXT; *event = calloc(1, sizeof **event); return OK; }
Result cuEventDestroy_v2(Event *event) { free(event); return OK; }
Result cuEventRecord(Event *event, uintptr_t s) {
    struct timespec now;
    if (!is_stream(s)) return fault(INVALID_HANDLE, "cuEventRecord: no stream");
    clock_gettime(CLOCK_MONOTONIC, &now);
    *event = (Event){now.tv_sec * 1e3 + now.tv_nsec / 1e6, 1};
    return OK;
}
Result cuEventSynchronize(Event *event) { return event->recorded ? OK : INVALID_HANDLE; }
Result cuEventQuery(Event *event) { return event->recorded ? OK : INVALID_HANDLE; }
Result cuEventElapsedTime_v2(float *ms, Event *start, Event *end) {
    if (!start->recorded || !end->recorded) return fault(INVALID_HANDLE, "cuEventElapsedTime: an event not recorded");
    *ms = (float)(end->ms - start->ms);
    return OK;
}
Result cuStreamWaitEvent(uintptr_t s, Event *event, unsigned flags) { return is_stream(s) ? OK : INVALID_HANDLE; }

/* Copies. One on the default stream is refused while any stream is captured. */
static Result copy(const char *who, uintptr_t to, uintptr_t from, size_t bytes, int to_device, int from_device) {
    Result code = OK;
    NEED_CONTEXT;
    pthread_mutex_lock(&lock);
    if (n_capturing) code = fault(CAPTURE_IMPLICIT, "%s in a capture", who);
    if (!code && to_device) code = inside(who, to, bytes);
    if (!code && from_device) code = inside(who, from, bytes);
    if (!code && bytes) memmove((void *)to, (void *)from, bytes);
    pthread_mutex_unlock(&lock);
    return code;
}
Result cuMemcpyHtoD_v2(uintptr_t d, void *h, size_t n) { return copy("cuMemcpyHtoD", d, (uintptr_t)h, n, 1, 0); }
Result cuMemcpyDtoH_v2(void *h, uintptr_t d, size_t n) { return copy("cuMemcpyDtoH", (uintptr_t)h, d, n, 0, 1); }
Result cuMemcpyDtoD_v2(uintptr_t to, uintptr_t from, size_t n) { return copy("cuMemcpyDtoD", to, from, n, 1, 1); }
Result cuMemcpyHtoDAsync_v2(uintptr_t d, void *h, size_t n, uintptr_t s) { return cuMemcpyHtoD_v2(d, h, n); }
Result cuMemcpyDtoHAsync_v2(void *h, uintptr_t d, size_t n, uintptr_t s) { return cuMemcpyDtoH_v2(h, d, n); }
Result cuMemcpyDtoDAsync_v2(uintptr_t a, uintptr_t b, size_t n, uintptr_t s) { return cuMemcpyDtoD_v2(a, b, n); }
Result cuMemsetD8_v2(uintptr_t p, unsigned char byte, size_t n) {
    Result code = inside("cuMemsetD8", p, n);
    if (!code) memset((void *)p, byte, n);
    return code;
}

/* Code: kernels are read from the cubin. */
enum { MOST_ARGUMENTS = 256, MOST_KERNELS = 8 };
typedef struct {
    char name[1024];
    int registers, threads, local, dynamic_limit, asked; /* asked: whether the limit was */
    size_t shared, bytes; /* static shared memory; of all arguments */
    int arguments, sizes[MOST_ARGUMENTS];
    void *library;
} Kernel;
typedef struct { int kernels, live; Kernel *kernel[MOST_KERNELS]; } Library;
enum { RESERVED_SHARED = 1024, PARAMETER = 0x17, FRAME_SIZE = 0x11, REGISTER_COUNT = 0x2f, MOST_THREADS = 0x05 };

static const Elf64_Shdr *section(const char *image, int number) {
    const Elf64_Ehdr *head = (const void *)image;
    return (const Elf64_Shdr *)(image + head->e_shoff) + number;
}

/* Each attribute of an .nv.info section: a byte of format, one of kind, two of size or value. */
static void read_attributes(Kernel *k, int symbol, const char *at, const char *end) {
    while (at + 4 <= end) {
        unsigned char format = at[0], kind = at[1];
        uint16_t size;
        memcpy(&size, at + 2, 2);
        const char *body = at + 4;
        uint32_t word[3] = {0};
        if (format == 4) {
            memcpy(word, body, size < 12 ? size : 12);
            if (kind == PARAMETER && size == 12) {
                int ordinal = word[1] & 0xffff;
                if (ordinal < MOST_ARGUMENTS) k->sizes[ordinal] = word[2] >> 18;
                if (ordinal >= k->arguments) k->arguments = ordinal + 1;
            }
            if (kind == MOST_THREADS) k->threads = word[0] * word[1] * word[2];
            if (kind == FRAME_SIZE && (int)word[0] == symbol) k->local = word[1];
            if (kind == REGISTER_COUNT && (int)word[0] == symbol) k->registers = word[1];
            at = body + size;
        } else
            at = body;
    }
}

Result cuLibraryLoadData(Library **out, const char *image, void *a, void *b, unsigned c, void *d, void *e, unsigned f) {
    const Elf64_Ehdr *head = (const void *)image;
    NEED_CONTEXT;
    if (memcmp(image, ELFMAG, SELFMAG)) return INVALID_IMAGE; /* PTX: there is no assembler here */
    Library *library = calloc(1, sizeof *library);
    library->live = 1;
    const char *names = image + section(image, head->e_shstrndx)->sh_offset;
    for (int i = 0; i < head->e_shnum; i++) {
        const Elf64_Shdr *text = section(image, i);
        const char *name = names + text->sh_name;
        if (strncmp(name, ".text.", 6) || library->kernels == MOST_KERNELS) continue;
        Kernel *k = library->kernel[library->kernels++] = calloc(1, sizeof *k);
        snprintf(k->name, sizeof k->name, "%s", name + 6);
        k->threads = MAX_THREADS;
        k->dynamic_limit = SHARED;
        k->library = library;
        for (int j = 0; j < head->e_shnum; j++) {
            const Elf64_Shdr *s = section(image, j);
            const char *of = names + s->sh_name;
            int own = !strncmp(of, ".nv.info.", 9) && !strcmp(of + 9, k->name);
            if (own || !strcmp(of, ".nv.info")) {
                const Elf64_Shdr *table = section(image, s->sh_link);
                const Elf64_Sym *symbols = (const void *)(image + table->sh_offset);
                const char *strings = image + section(image, table->sh_link)->sh_offset;
                int symbol = -1;
                for (size_t q = 0; q < table->sh_size / sizeof *symbols; q++)
                    if (!strcmp(strings + symbols[q].st_name, k->name)) symbol = q;
                read_attributes(k, symbol, image + s->sh_offset, image + s->sh_offset + s->sh_size);
            }
            if (!strncmp(of, ".nv.shared.", 11) && !strcmp(of + 11, k->name))
                k->shared = s->sh_size > RESERVED_SHARED ? s->sh_size - RESERVED_SHARED : 0;
        }
    }
    *out = library;
    return OK;
}
Result cuLibraryUnload(Library *library) {
    library->live = 0; /* kept, so that a launch of one of its kernels is seen */
    return OK;
}
Result cuLibraryGetKernel(Kernel **kernel, Library *library, const char *name) {
    for (int i = 0; i < library->kernels; i++)
        if (!strcmp(library->kernel[i]->name, name)) {
            *kernel = library->kernel[i];
            return OK;
        }
    return NOT_FOUND;
}
Result cuKernelGetLibrary(void **library, Kernel *kernel) { *library = kernel->library; return OK; }
Result cuKernelGetAttribute(int *value, int attribute, Kernel *k, int device) {
    switch (attribute) { /* CUfunction_attribute */
    case 0: *value = k->threads; return OK;
    case 1: *value = (int)k->shared; return OK;
    case 2: *value = 0; return OK;
    case 3: *value = k->local; return OK;
    case 4: *value = k->registers; return OK;
    case 8: *value = k->dynamic_limit; return OK;
    default: *value = 0; return OK;
    }
}
Result cuKernelSetAttribute(int attribute, int value, Kernel *k, int device) {
    if (attribute != 8) return OK; /* the carveout is a wish */
    if (value < 0 || value + k->shared > SHARED_OPTIN) return INVALID_VALUE;
    k->dynamic_limit = value, k->asked = 1;
    return OK;
}

static int blocks_resident(const Kernel *k, int threads, size_t dynamic) { /* of a multiprocessor */
    int by_threads = SM_THREADS / ((threads + 31) / 32 * 32);
    int by_registers = REGISTERS / ((k->registers + 7) / 8 * 8 * ((threads + 127) / 128 * 128));
    int by_shared = (SHARED_OPTIN + 1024) / (k->shared + dynamic + RESERVED_SHARED);
    int most = by_threads < by_registers ? by_threads : by_registers;
    most = most < by_shared ? most : by_shared;
    return most < 32 ? most : 32;
}
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, Kernel *k, int threads, size_t dynamic) {
    *n = blocks_resident(k, threads, dynamic);
    return OK;
}

/* Launches. */
typedef struct {
    char kernel[256];
    unsigned grid[3], block[3], shared;
    int together, arguments;
    uintptr_t stream;
    uint64_t words; /* a hash of all arguments */
} Launch;
enum { KEPT = 1 << 16 };
static Launch kept[KEPT];
static long n_launches; /* begun on the device, those of graphs too; the last KEPT single ones are kept */
static long n_kept;

long stub_launches(void) { return n_launches; }
long stub_kept(void) { return n_kept; }
int stub_launch(long number, Launch *out) {
    if (number < 0 || number >= n_kept || number < n_kept - KEPT) return 1;
    *out = kept[number % KEPT];
    return 0;
}

/* Numba gives an array as two words that are not used, numbers, bytes of each, address, shape, strides. */
static uint64_t check_arguments(const Kernel *k, void **arguments) { /* their hash (FNV-1a, by words) */
    uint64_t hash = 0xcbf29ce484222325;
    int64_t word[MOST_ARGUMENTS];
    for (int i = 0; i < k->arguments; i++) {
        if (!arguments[i]) {
            fault(0, "%s: argument %d of %d is missing", k->name, i, k->arguments);
            return 0;
        }
        word[i] = 0;
        memcpy(&word[i], arguments[i], k->sizes[i] < 8 ? k->sizes[i] : 8);
        hash = (hash ^ (uint64_t)word[i]) * 0x100000001b3;
    }
    for (int i = 2; i < k->arguments; i++) {
        Block *b = k->sizes[i] == 8 ? block_at((uintptr_t)word[i]) : NULL;
        if (!b) continue;
        if (word[i] % (word[i - 1] > 0 && word[i - 1] <= 16 ? word[i - 1] : 1))
            fault(0, "%s: argument %d begins at %#zx, numbers have %zd bytes", k->name, i, (size_t)word[i],
                  (ssize_t)word[i - 1]);
        char who[320];
        snprintf(who, sizeof who, "%.200s: argument %d of %d", k->name, i, k->arguments);
        inside(who, (uintptr_t)word[i], (size_t)(word[i - 2] * word[i - 1]));
    }
    return hash;
}

static Result launch(Kernel *k, const unsigned *grid, const unsigned *block, unsigned shared, uintptr_t s, int together,
                     void **arguments) {
    NEED_CONTEXT;
    if (!((Library *)k->library)->live) return fault(INVALID_HANDLE, "%s: its library was unloaded", k->name);
    if (!is_stream(s)) return fault(INVALID_HANDLE, "%s: no stream", k->name);
    unsigned threads = block[0] * block[1] * block[2];
    unsigned long blocks_asked = (unsigned long)grid[0] * grid[1] * grid[2];
    if (blocks_asked == 0 || threads == 0 || grid[1] > 65535 || grid[2] > 65535 || block[2] > 64)
        return fault(INVALID_VALUE, "%s: grid (%u, %u, %u) of blocks (%u, %u, %u)", k->name, grid[0], grid[1], grid[2],
                     block[0], block[1], block[2]);
    if (threads > (unsigned)k->threads || blocks_resident(k, threads, 0) == 0)
        return fault(OUT_OF_RESOURCES, "%s: %u threads of %d registers; compiled for %d", k->name, threads, k->registers,
                     k->threads);
    if (shared > (unsigned)k->dynamic_limit || (!k->asked && shared + k->shared > SHARED))
        return fault(INVALID_VALUE, "%s: %u bytes of dynamic and %zu of static shared memory; %d are granted", k->name,
                     shared, k->shared, k->dynamic_limit);
    if (together && blocks_asked > (unsigned long)SMS * blocks_resident(k, threads, shared))
        return TOO_LARGE_TOGETHER;
    if (k->local) fault(0, "%s: %d bytes of a thread in local memory", k->name, k->local);
    Stream *stream = stream_of(s);
    pthread_mutex_lock(&lock);
    uint64_t words = check_arguments(k, arguments);
    if (stream && stream->capturing) stream->launches++;
    else n_launches++;
    Launch *l = &kept[n_kept++ % KEPT];
    snprintf(l->kernel, sizeof l->kernel, "%.255s", k->name);
    memcpy(l->grid, grid, sizeof l->grid);
    memcpy(l->block, block, sizeof l->block);
    l->shared = shared, l->together = together, l->arguments = k->arguments, l->stream = s, l->words = words;
    pthread_mutex_unlock(&lock);
    return OK;
}

typedef struct { int id; char pad[4]; union { int number; char room[64]; } value; } LaunchAttribute;
typedef struct {
    unsigned grid[3], block[3], shared;
    uintptr_t stream;
    LaunchAttribute *attributes;
    unsigned n_attributes;
} LaunchConfig;

Result cuLaunchKernelEx(const LaunchConfig *c, Kernel *k, void **arguments, void **extra) {
    int together = 0;
    for (unsigned i = 0; i < c->n_attributes; i++) {
        if (c->attributes[i].id == 2) together = c->attributes[i].value.number;
    }
    return launch(k, c->grid, c->block, c->shared, c->stream, together, arguments);
}
Result cuLaunchKernel(Kernel *k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, uintptr_t s, void **arguments, void **extra) {
    return launch(k, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared, s, 0, arguments);
}
Result cuLaunchCooperativeKernel(Kernel *k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                 unsigned shared, uintptr_t s, void **arguments) {
    return launch(k, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared, s, 1, arguments);
}
Result cuGraphLaunch(Graph *executable, uintptr_t s) {
    NEED_CONTEXT;
    if (!is_stream(s)) return fault(INVALID_HANDLE, "cuGraphLaunch: no stream");
    LOCKED(n_launches += executable->launches);
    return OK;
}

/* Names of errors, and functions by name: with a version behind it or none. */
Result cuGetErrorName(Result code, const char **name) {
    static _Thread_local char said[32];
    snprintf(said, sizeof said, "CUDA_ERROR %d", code);
    *name = said;
    return OK;
}
Result cuGetErrorString(Result code, const char **text) { *text = "see CUresult"; return OK; }
static void *function_named(const char *name) {
    static const char *endings[] = {"_v4", "_v3", "_v2", ""};
    static void *own;
    char full[256];
    Dl_info here;
    if (!own && dladdr((void *)function_named, &here)) own = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    for (int i = 0; i < 4; i++) {
        snprintf(full, sizeof full, "%s%s", name, endings[i]);
        void *found = dlsym(own, full);
        if (found) return found;
    }
    if (getenv("STUB_VERBOSE")) fprintf(stderr, "stub: no %s\n", name);
    return NULL;
}
Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    *function = function_named(name);
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
