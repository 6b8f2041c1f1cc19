// Stands in for OpenCV while FFCV is built: the few names that libffcv.cpp uses, for 3-channel bytes.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#define CV_8UC3 16

namespace cv {

enum { INTER_AREA = 3 };

struct Size {
    int width, height;
};

// A view of interleaved bytes; rows lie `stride` bytes apart.
struct Mat {
    int rows, cols;
    uint8_t *data;
    int64_t stride;

    Mat(int rows, int cols, int /*type*/, uint8_t *data)
        : Mat(rows, cols, data, static_cast<int64_t>(cols) * 3) {}
    Mat(int rows, int cols, uint8_t *data, int64_t stride)
        : rows(rows), cols(cols), data(data), stride(stride) {}

    Mat rowRange(int from, int to) const { return Mat(to - from, cols, data + from * stride, stride); }
    Mat colRange(int from, int to) const { return Mat(rows, to - from, data + from * 3, stride); }
    Size size() const { return Size{cols, rows}; }
};

// How much of the source pixel [i, i + 1) lies in [from, to).
inline double overlap(int i, double from, double to) {
    return std::min(to, i + 1.0) - std::max(from, static_cast<double>(i));
}

// Every target pixel is the area-weighted mean of the source pixels that it covers.
inline void resize(const Mat &source, Mat &target, Size, double, double, int) {
    const double scale_y = static_cast<double>(source.rows) / target.rows;
    const double scale_x = static_cast<double>(source.cols) / target.cols;
    for (int y = 0; y < target.rows; ++y) {
        const double top = y * scale_y, bottom = (y + 1) * scale_y;
        const int last_row = std::min(source.rows, static_cast<int>(std::ceil(bottom)));
        for (int x = 0; x < target.cols; ++x) {
            const double left = x * scale_x, right = (x + 1) * scale_x;
            const int last_col = std::min(source.cols, static_cast<int>(std::ceil(right)));
            double sum[3] = {0, 0, 0}, area = 0;
            for (int i = static_cast<int>(top); i < last_row; ++i) {
                for (int j = static_cast<int>(left); j < last_col; ++j) {
                    const double weight = overlap(i, top, bottom) * overlap(j, left, right);
                    const uint8_t *pixel = source.data + i * source.stride + j * 3;
                    area += weight;
                    for (int c = 0; c < 3; ++c) sum[c] += weight * pixel[c];
                }
            }
            uint8_t *pixel = target.data + y * target.stride + x * 3;
            for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(sum[c] / area + 0.5);
        }
    }
}

}  // namespace cv
