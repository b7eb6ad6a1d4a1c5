// A plugin for QEMU 7 or later that counts the instructions of a program: qemu-aarch64 -plugin instructions.so ...
// What it uses of QEMU is declared here, since few distributions have the header.
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

typedef uint64_t Id;
struct Block;

void qemu_plugin_register_vcpu_tb_trans_cb(Id id, void (*translated)(Id, struct Block*));
size_t qemu_plugin_tb_n_insns(const struct Block* block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct Block* block, int add, void* to, uint64_t amount);
void qemu_plugin_register_atexit_cb(Id id, void (*ended)(Id, void*), void* data);

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int qemu_plugin_version = 1;

static uint64_t count;

static void translated(Id id, struct Block* block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(block, 0, &count, qemu_plugin_tb_n_insns(block));
}

static void ended(Id id, void* data) {
  (void)id, (void)data;
  fprintf(stderr, "instructions %" PRIu64 "\n", count);
}

EXPORTED int qemu_plugin_install(Id id, const void* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
