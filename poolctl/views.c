/* views.c: what is shown of each kind of thing, and in which order. Paths are fields of proto/. */
#include "poolctl/view.h"

static const struct field node_fields[] = {
    {"NAME", "name", NULL, FIELD_TEXT, 0},
    {"PHASE", "phase", NULL, FIELD_PHASE, 0},
    {"VMS", "vms", NULL, FIELD_NUMBER, 0},
    {"CPU", "cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"VCPUS", "vcpus_reserved", "cpus", FIELD_NUMBER, 0},
    {"MEMORY", "memory_reserved_mib", "memory_mib", FIELD_MIB, 0},
    {"USED", "memory_used_mib", NULL, FIELD_MIB, 0},
    {"BANDWIDTH", "bandwidth_reserved_bps", "bandwidth_bps", FIELD_BPS, 0},
    {"IN", "net_rx_bps", NULL, FIELD_BPS, FIELD_WIDE},
    {"OUT", "net_tx_bps", NULL, FIELD_BPS, FIELD_WIDE},
    {"STORAGE FREE", "storage_free_mib", "storage_total_mib", FIELD_MIB, FIELD_WIDE},
    {"ADDRESS", "address", NULL, FIELD_TEXT, FIELD_WIDE},
    {"VERSION", "version", NULL, FIELD_TEXT, FIELD_WIDE},
    {"KERNEL", "kernel", NULL, FIELD_TEXT, FIELD_WIDE},
    {"LAST REPORT", "last_report_wall_ms", NULL, FIELD_AGE, FIELD_WIDE},
    {"LABELS", "labels", NULL, FIELD_LABELS, FIELD_WIDE},
    {"ID", "id", NULL, FIELD_TEXT, FIELD_WIDE},
    {0}};
const struct view view_nodes = {
    "nodes", "node", "name",
    "no nodes yet: make a token with 'poolctl node token' and start pool-agent with it",
    node_fields};

static const struct field vm_fields[] = {
    {"NAME", "name", NULL, FIELD_TEXT, 0},
    {"PHASE", "phase", NULL, FIELD_PHASE, 0},
    {"NODE", "node", NULL, FIELD_TEXT, 0},
    {"VCPUS", "spec.vcpus", NULL, FIELD_NUMBER, 0},
    {"MEMORY", "spec.memory_mib", NULL, FIELD_MIB, 0},
    {"BANDWIDTH", "spec.bandwidth_bps", NULL, FIELD_BPS, FIELD_DASH},
    {"CPU", "cpu_permille", NULL, FIELD_PERMILLE, 0},
    {"IMAGE", "spec.image.name", NULL, FIELD_TEXT, 0},
    {"UP FOR", "started_wall_ms", NULL, FIELD_AGE, 0},
    {"IN", "net_rx_bps", NULL, FIELD_BPS, FIELD_WIDE},
    {"OUT", "net_tx_bps", NULL, FIELD_BPS, FIELD_WIDE},
    {"LABELS", "spec.labels", NULL, FIELD_LABELS, FIELD_WIDE},
    {"GROUP", "spec.anti_affinity_group", NULL, FIELD_TEXT, FIELD_WIDE},
    {"EPOCH", "epoch", NULL, FIELD_NUMBER, FIELD_WIDE},
    {"JOB", "job", NULL, FIELD_NUMBER, FIELD_WIDE | FIELD_DASH},
    {"ID", "id", NULL, FIELD_TEXT, FIELD_WIDE},
    {"TEXT", "text", NULL, FIELD_TEXT, FIELD_WIDE},
    {0}};
const struct view view_vms = {"vms", "vm", "name", "no VMs yet: see poolctl vm create --help",
                              vm_fields};

static const struct field job_fields[] = {
    {"ID", "id", NULL, FIELD_NUMBER, 0},
    {"KIND", "kind", NULL, FIELD_TEXT, 0},
    {"SUBJECT", "subject", NULL, FIELD_TEXT, 0},
    {"PHASE", "phase", NULL, FIELD_PHASE, 0},
    {"STEPS", "steps_done", "steps_total", FIELD_NUMBER, 0},
    {"AGE", "created_wall_ms", NULL, FIELD_AGE, 0},
    {"STEP", "step", NULL, FIELD_TEXT, FIELD_WIDE},
    {"FROM", "from_node", NULL, FIELD_TEXT, FIELD_WIDE},
    {"TO", "to_node", NULL, FIELD_TEXT, FIELD_WIDE},
    {"ENDED", "ended_wall_ms", NULL, FIELD_TIME, FIELD_WIDE},
    {"ADMIN", "admin", NULL, FIELD_TEXT, FIELD_WIDE},
    {"PARENT", "parent", NULL, FIELD_NUMBER, FIELD_WIDE | FIELD_DASH},
    {"TEXT", "text", NULL, FIELD_TEXT, FIELD_FLEXIBLE},
    {0}};
const struct view view_jobs = {"jobs", "job", "id", "no jobs in the last day", job_fields};

static const struct field image_fields[] = {
    {"NAME", "spec.name", NULL, FIELD_TEXT, 0},
    {"KERNEL", "spec.kernel_bytes", NULL, FIELD_BYTES, 0},
    {"INITRD", "spec.initrd_bytes", NULL, FIELD_BYTES, FIELD_DASH},
    {"DISK", "spec.disk_bytes", NULL, FIELD_BYTES, FIELD_DASH},
    {"VMS", "vms", NULL, FIELD_NUMBER, 0},
    {"AGE", "created_wall_ms", NULL, FIELD_AGE, 0},
    {"KERNEL SHA-256", "spec.kernel_sha256", NULL, FIELD_TEXT, FIELD_WIDE},
    {"INITRD SHA-256", "spec.initrd_sha256", NULL, FIELD_TEXT, FIELD_WIDE},
    {"DISK SHA-256", "spec.disk_sha256", NULL, FIELD_TEXT, FIELD_WIDE},
    {"CMDLINE", "spec.cmdline", NULL, FIELD_TEXT, FIELD_FLEXIBLE},
    {0}};
const struct view view_images = {"images", "image", "spec.name",
                                 "no images yet: see poolctl image import --help", image_fields};

static const struct field event_fields[] = {
    {"ID", "id", NULL, FIELD_NUMBER, FIELD_WIDE},
    {"TIME", "wall_ms", NULL, FIELD_TIME, 0},
    {"SEVERITY", "severity", NULL, FIELD_PHASE, 0},
    {"KIND", "kind", NULL, FIELD_TEXT, 0},
    {"SUBJECT", "subject", NULL, FIELD_TEXT, 0},
    {"JOB", "job", NULL, FIELD_NUMBER, FIELD_WIDE | FIELD_DASH},
    {"TEXT", "text", NULL, FIELD_TEXT, FIELD_FLEXIBLE},
    {0}};
const struct view view_events = {"events", "event", "id", "no events", event_fields};

static const struct field verdict_fields[] = {
    {"NODE", "node", NULL, FIELD_TEXT, 0},
    {"FITS", "fits", NULL, FIELD_YES_NO, 0},
    {"SCORE", "score", NULL, FIELD_SCORE, FIELD_DASH},
    {"FILTER", "filter", NULL, FIELD_TEXT, FIELD_WIDE},
    {"REASON", "reason", NULL, FIELD_TEXT, FIELD_FLEXIBLE},
    {0}};
const struct view view_verdicts = {"verdicts", "placement", "node", "no nodes to choose from",
                                   verdict_fields};

static const struct field move_fields[] = {{"VM", "vm", NULL, FIELD_TEXT, 0},
                                           {"FITS", "fits", NULL, FIELD_YES_NO, 0},
                                           {"TO", "node", NULL, FIELD_TEXT, 0},
                                           {"REASON", "reason", NULL, FIELD_TEXT, FIELD_FLEXIBLE},
                                           {0}};
const struct view view_moves = {"verdicts", "placement", "node", "no VMs to move", move_fields};

static const struct field round_fields[] = {{"ROUND", "number", NULL, FIELD_NUMBER, 0},
                                            {"PAGES", "pages_sent", NULL, FIELD_NUMBER, 0},
                                            {"ZERO", "pages_zero", NULL, FIELD_NUMBER, 0},
                                            {"DELTA", "pages_delta", NULL, FIELD_NUMBER, 0},
                                            {"RAW", "page_bytes", NULL, FIELD_BYTES, 0},
                                            {"BYTES", "wire_bytes", NULL, FIELD_BYTES, 0},
                                            {"CODEC", "codec", NULL, FIELD_TEXT, 0},
                                            {"TIME", "duration_us", NULL, FIELD_US, 0},
                                            {"DIRTIED", "dirtied_pages", NULL, FIELD_NUMBER, 0},
                                            {0}};
const struct view view_rounds = {"rounds", "round", "number", NULL, round_fields};

static const struct field context_fields[] = {{"CURRENT", "current", NULL, FIELD_YES_NO, 0},
                                              {"NAME", "name", NULL, FIELD_TEXT, 0},
                                              {"ADDRESS", "address", NULL, FIELD_TEXT, 0},
                                              {"FILE", "file", NULL, FIELD_TEXT, 0},
                                              {0}};
const struct view view_contexts = {"contexts", "context", "name",
                                   "no contexts: copy admin.context from the controller and add it "
                                   "with 'poolctl context add NAME FILE'",
                                   context_fields};
