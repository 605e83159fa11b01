// Trains models as the kernel does, from a file to a file, where there is no Python: test_golden.py.

#include "kernel.cpp"

#include <cstdio>

template <class Number>
std::vector<Number> read(std::int64_t count) {
    std::vector<Number> numbers(count);
    if (std::fread(numbers.data(), sizeof(Number), count, stdin) != std::size_t(count)) std::abort();
    return numbers;
}

int main() {
    const auto sizes = read<std::int64_t>(7);
    const std::int64_t count = sizes[0], steps = sizes[1], rows = sizes[2], width = sizes[3];
    const auto rates = read<real>(3 * steps), decay = read<real>(PARAMETERS), four = read<real>(4);
    const std::vector<real> one(PARAMETERS, 1);
    const Settings settings{rates.data(), one.data(), decay.data(),
                            four[0], four[1], four[2], four[3]};
    std::vector<std::vector<std::int32_t>> tables, lengths;
    std::vector<std::vector<real>> weights;
    std::vector<Data> data;
    for (int i = 0; i < count; i++) {
        const std::uint64_t seed = read<std::uint64_t>(1)[0];
        tables.push_back(read<std::int32_t>(rows * width));
        lengths.push_back(read<std::int32_t>(sizes[5]));
        weights.push_back(read<real>(sizes[6]));
        data.push_back({tables.back().data(), sizes[5] ? lengths.back().data() : nullptr,
                        sizes[6] ? weights.back().data() : nullptr, rows, width, sizes[4], seed});
    }
    auto parameters = read<real>(count * PARAMETERS);
    std::vector<real> means(parameters.size()), squares(parameters.size());
    if (!run(int(count), data.data(), nullptr, nullptr, &settings, 0, steps, 2, parameters.data(),
             means.data(), squares.data(), nullptr, nullptr, nullptr)) {
        std::abort();
    }
    std::fwrite(parameters.data(), sizeof(real), parameters.size(), stdout);
}
