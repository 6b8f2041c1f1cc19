// Stands in for libjpeg-turbo while FFCV is built: the names that libffcv.cpp uses, and no JPEG.
// FFCV ignores the return value of a failed decode and would hand out garbage, so a JPEG ends the
// process with a sentence.
#pragma once
#include <stdio.h>
#include <stdlib.h>

typedef void *tjhandle;
typedef struct {
    int x, y, w, h;
} tjregion;
typedef struct {
    tjregion r;
    int op, options;
    void *data;
    int (*customFilter)(void);
} tjtransform;
typedef struct {
    int num, denom;
} tjscalingfactor;

enum { TJXOP_HFLIP = 1, TJXOPT_CROP = 4 };
enum { TJFLAG_NOREALLOC = 1024, TJFLAG_FASTDCT = 2048 };
enum { TJPF_RGB = 0 };

#define TJSCALED(size, factor) (((size) * (factor).num + (factor).denom - 1) / (factor).denom)

static inline int tj_absent(void) {
    fputs("fastnt: error: this FFCV was built without JPEG and cannot decode JPEG images; "
          "reinstall FFCV with OpenCV and libjpeg-turbo\n", stderr);
    abort();
}

static inline tjhandle tjInitTransform(void) { return malloc(1); }
static inline tjhandle tjInitDecompress(void) { return malloc(1); }
static inline void tjFree(unsigned char *buffer) { free(buffer); }

static inline int tjTransform(tjhandle, const unsigned char *, unsigned long, int, unsigned char **,
                              unsigned long *, tjtransform *, int) {
    return tj_absent();
}

static inline int tjDecompress2(tjhandle, const unsigned char *, unsigned long, unsigned char *, int,
                                int, int, int, int) {
    return tj_absent();
}
