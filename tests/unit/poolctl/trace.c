#include "poolctl/trace.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "poolctl/hosts.h"

#define HEADER "arrival_s,lifetime_s,vcpus,memory_mib,network_mbps\n"

static int read_text(const char *text, struct trace *trace, struct error *err)
{
    char path[] = "/tmp/vmpool-trace-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    cr_assert_eq(close(fd), 0);
    int status = trace_read(path, trace, err);
    cr_assert_eq(unlink(path), 0);
    return status;
}

Test(trace, columns_are_found_by_name_and_others_skipped)
{
    struct error err = ERROR_INIT;
    struct trace trace;
    cr_assert_eq(read_text("vcpus,tenant,arrival_s,memory_mib,lifetime_s,network_mbps\r\n"
                           "2,x,0,512,300,250\r\n"
                           "4,y,300,1024,,0\n",
                           &trace, &err),
                 0, "%s", err.text);
    cr_assert_eq(trace.count, 2);
    cr_assert_eq(trace.arrivals[0].need.cpu_milli, 2000);
    cr_assert_eq(trace.arrivals[0].need.bandwidth_bps, 250000000);
    cr_assert_eq(trace.arrivals[0].lifetime_s, 300);
    cr_assert_eq(trace.arrivals[1].arrival_s, 300);
    cr_assert_eq(trace.arrivals[1].lifetime_s, SIM_STAYS);
    cr_assert_str_eq(trace.arrivals[1].tenant, "y");
    trace_free(&trace);
}

Test(trace, gzip_reads_the_same)
{
    struct error err = ERROR_INIT;
    struct trace trace;
    char path[] = "/tmp/vmpool-trace-XXXXXX";
    int fd = mkstemp(path);
    gzFile file = gzdopen(fd, "wb");
    cr_assert_gt(gzputs(file, HEADER "7,1,1,256,1\n"), 0);
    cr_assert_eq(gzclose(file), Z_OK);
    cr_assert_eq(trace_read(path, &trace, &err), 0, "%s", err.text);
    cr_assert_eq(trace.arrivals[0].arrival_s, 7);
    trace_free(&trace);
    cr_assert_eq(truncate(path, 30), 0);
    cr_assert_eq(trace_read(path, &trace, &err), -1);
    cr_assert_eq(unlink(path), 0);
}

Test(trace, what_is_wrong_is_said_with_its_line)
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"", "the file is empty"},
        {"arrival_s,vcpus\n", "line 1: column lifetime_s is missing"},
        {HEADER, "no line with a VM"},
        {HEADER "5,1,1,1,1\n\n4,1,1,1,1\n", "line 4: arrival_s 4 is before the 5"},
        {HEADER "5,1,1,1\n", "line 2 has 4 columns: expected 5"},
        {HEADER "5,1,-1,1,1\n", "line 2: vcpus"},
        {HEADER "5,1,0,1,1\n", "line 2: vcpus"},
        {HEADER "5,1,1,,1\n", "line 2: memory_mib"},
        {HEADER "5,1,1,99999999999999999999,1\n", "line 2: memory_mib"},
        {HEADER "5,1,1,1.5,1\n", "line 2: memory_mib"},
        {HEADER "5,-3,1,1,1\n", "line 2: lifetime_s"},
        {HEADER "nan,1,1,1,1\n", "line 2: arrival_s"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = ERROR_INIT;
        struct trace trace;
        cr_assert_eq(read_text(cases[i].text, &trace, &err), -1, "case %zu", i);
        cr_assert_eq(err.kind, ERROR_USAGE);
        cr_assert(strstr(err.text, cases[i].said), "%s", err.text);
        cr_assert_null(trace.arrivals);
    }
}

Test(trace, overlong_lines_are_refused)
{
    static char text[10000];
    struct error err = ERROR_INIT;
    struct trace trace;
    memset(text, '1', sizeof text - 1);
    memcpy(text, HEADER, strlen(HEADER));
    cr_assert_eq(read_text(text, &trace, &err), -1);
    cr_assert(strstr(err.text, "line 2 is longer"), "%s", err.text);
}

Test(hosts, a_size_is_vcpus_memory_and_bandwidth)
{
    struct error err = ERROR_INIT;
    struct sched_resources size;
    cr_assert_eq(host_parse("64c,128G,25Gbps", &size, &err), 0, "%s", err.text);
    cr_assert_eq(size.cpu_milli, 64000);
    cr_assert_eq(size.memory_mib, 131072);
    cr_assert_eq(size.bandwidth_bps, UINT64_C(25000000000));
    static const char *const wrong[] = {"",           "64c",        "64c,128G",
                                        "64,128G,1G", "c,1G,1G",    "0c,1G,1G",
                                        "1c,5K,1G",   "1c,1G,fast", "1c,-1G,1G"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(host_parse(wrong[i], &size, &err), -1, "%s", wrong[i]);
        cr_assert_eq(err.kind, ERROR_USAGE);
    }
}

static int hosts_text(const char *text, struct hosts *hosts, struct error *err)
{
    char path[] = "/tmp/vmpool-hosts-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    cr_assert_eq(close(fd), 0);
    int status = hosts_read(path, hosts, err);
    cr_assert_eq(unlink(path), 0);
    return status;
}

Test(hosts, a_file_has_names_and_sizes_each_once)
{
    struct error err = ERROR_INIT;
    struct hosts hosts;
    cr_assert_eq(
        hosts_text("# rack a\nn1 64c,128G,25Gbps\n\nn2\t8c,16G,1G # small\n", &hosts, &err), 0,
        "%s", err.text);
    cr_assert_eq(hosts.count, 2);
    cr_assert_str_eq(hosts.hosts[1].name, "n2");
    cr_assert_eq(hosts.hosts[1].capacity.cpu_milli, 8000);
    hosts_free(&hosts);
    cr_assert_eq(hosts_text("n1 8c,16G,1G\n#\nn1 8c,16G,1G\n", &hosts, &err), -1);
    cr_assert(strstr(err.text, "line 3: host n1 stands in line 1 already"), "%s", err.text);
    cr_assert_eq(hosts_text("n1\n", &hosts, &err), -1);
    cr_assert(strstr(err.text, "line 1: expected a name and a size"), "%s", err.text);
    cr_assert_eq(hosts_text("", &hosts, &err), -1);
}
