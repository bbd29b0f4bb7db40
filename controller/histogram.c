#include "controller/histogram.h"

void histogram_add(struct histogram *histogram, double value)
{
    unsigned i = 0;
    while (i < histogram->bound_count && value > histogram->bounds[i])
        i++;
    histogram->counts[i]++;
    histogram->sum += value;
}
