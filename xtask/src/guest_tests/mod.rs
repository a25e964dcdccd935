//! Tests that boot a guest, and tests of what `cloister` says to wrong options.

mod amd;
mod attest;
mod bad_input;
mod devices;
mod disk_boot;
mod dist;
mod epc;
mod epc_view;
mod exec;
mod exec_at_length;
mod exec_complaints;
mod exec_root;
pub(crate) mod gramine;
mod images;
mod kernels;
mod kvm;
mod monitor;
mod nested;
mod net;
mod oci;
pub(crate) mod pce;
mod policy;
mod posix;
mod power;
mod qemu;
pub(crate) mod qvl;
mod race;
mod random;
mod rules;
pub(crate) mod sdk;
mod setup;
mod sgx;
mod shares;
mod stacks;
mod translate;
mod vmdk_images;
mod vmx;
mod vsock;
mod x86;

use anyhow::Result;

use nested::By;

pub(crate) use setup::Setup;

/// One test.
pub(crate) struct GuestTest {
    /// The case and its outcome.
    pub(crate) name: &'static str,
    /// Fails with what was seen instead.
    pub(crate) body: fn(&Setup) -> Result<()>,
    /// It wants all of the host: its guest has several processors that wait for one another.
    pub(crate) alone: bool,
    /// It takes too long for each change: `--all` runs it.
    pub(crate) long: bool,
}

const fn test(name: &'static str, body: fn(&Setup) -> Result<()>) -> GuestTest {
    GuestTest { name, body, alone: false, long: false }
}

const fn alone(name: &'static str, body: fn(&Setup) -> Result<()>) -> GuestTest {
    GuestTest { name, body, alone: true, long: false }
}

const fn long(name: &'static str, body: fn(&Setup) -> Result<()>) -> GuestTest {
    GuestTest { name, body, alone: true, long: true }
}

/// Every test, the quick ones first.
pub(crate) const TESTS: &[GuestTest] = &[
    test("a_kernel_that_is_missing_is_refused", bad_input::missing_kernel),
    test("an_empty_kernel_is_refused", bad_input::empty_kernel),
    test("a_truncated_kernel_is_refused", bad_input::truncated_kernel),
    test("a_file_that_is_no_kernel_is_refused", bad_input::not_a_kernel),
    test("a_folder_as_kernel_is_refused", bad_input::folder_as_kernel),
    test("an_initrd_that_is_missing_is_refused", bad_input::missing_initrd),
    test("an_initrd_that_does_not_fit_is_refused", bad_input::initrd_does_not_fit),
    test("wrong_memory_sizes_are_refused", bad_input::memory_sizes),
    test("wrong_processor_counts_are_refused", bad_input::processor_counts),
    test("wrong_epc_sizes_are_refused", bad_input::epc_sizes),
    test("wrong_epc_keys_are_refused", bad_input::epc_keys),
    test("two_epc_sections_of_one_id_are_refused", bad_input::epc_id_twice),
    test("a_ninth_epc_section_is_refused", bad_input::ninth_epc_section),
    test("an_unreadable_disk_is_refused", bad_input::unreadable_disk),
    test("wrong_cpu_flags_are_refused", bad_input::cpu_flags),
    test("wrong_launch_keys_are_refused", bad_input::launch_keys),
    test("wrong_platform_directories_are_refused", bad_input::platforms),
    test("without_the_provision_file_its_key_is_refused", bad_input::provisioning),
    test("wrong_sandbox_values_are_refused", bad_input::sandbox),
    test("wrong_monitor_sockets_are_refused", bad_input::monitors),
    test("wrong_vsock_devices_are_refused", bad_input::vsock),
    test("wrong_shares_are_refused", bad_input::shares),
    test("unknown_options_are_refused", bad_input::unknown_options),
    test("wrong_options_of_qemu_are_refused", bad_input::qemu_options),
    test("info_names_the_accelerator_and_why", bad_input::info),
    test("power_off_ends_with_exit_code_0", power::power_off),
    test("a_reset_with_no_reboot_ends_with_exit_code_2", power::reset_with_no_reboot),
    test("a_panic_reset_with_no_reboot_ends_with_exit_code_2", power::panic_reset),
    test("the_line_of_the_2021_series_boots_an_installed_debian", disk_boot::series),
    test("an_installed_debian_with_its_package_has_quotes", disk_boot::quotes),
    test("a_reset_boots_the_kernel_again", power::reset_boots_again),
    alone("four_processors_come_online_and_share_memory", devices::four_processors),
    test("a_virtio_disk_is_read_byte_for_byte", devices::disk_read),
    test("a_write_to_a_virtio_disk_reaches_its_file", devices::disk_write),
    test("a_readonly_disk_refuses_writes", devices::disk_readonly),
    test("a_qcow2_disk_holds_what_a_raw_one_holds", images::written),
    test("a_qcow2_disk_of_version_2_is_written", images::old),
    test("a_qcow2_disk_on_backing_files_leaves_them_alone", images::backed),
    test("a_disk_with_a_snapshot_is_as_before", images::snapshot),
    test("an_internal_snapshot_keeps_what_it_holds", images::internal_snapshot),
    test("a_disk_that_was_guessed_to_be_raw_stays_raw", images::guessed),
    test("a_vmdk_disk_holds_what_a_raw_one_holds", vmdk_images::written),
    test("an_empty_vmdk_disk_is_filled", vmdk_images::empty),
    test("a_compressed_vmdk_disk_is_read_and_left_alone", vmdk_images::stream_optimized),
    test("a_qcow2_disk_on_a_vmdk_one_leaves_it_alone", vmdk_images::backing),
    test("a_vmdk_disk_in_other_files_is_refused", vmdk_images::refused),
    test("virtio_rng_gives_entropy", devices::entropy),
    test("a_line_written_to_virtio_console_comes_out", devices::virtio_console),
    test("streams_between_host_and_guest_carry_all_bytes_both_ways", vsock::echo),
    test("a_guest_reads_and_changes_a_shared_folder_and_leaves_it_by_no_name", shares::folder),
    alone("two_guests_and_the_host_agree_on_what_a_share_holds", shares::three),
    alone("two_machines_on_a_stream_exchange_data_both_ways", net::stream),
    test("exec_with_a_socket_of_its_own_ends_with_the_commands_code", net::exec_server),
    test("a_command_reaches_the_hosts_network_and_is_reached", net::user),
    test("a_command_reaches_an_interface_of_the_host", net::tap),
    test("a_guest_of_two_processors_uses_both_queues_of_an_interface", net::queues),
    test("a_command_has_names_datagrams_pings_and_ipv6_on_the_hosts_network", net::protocols),
    test("wrong_networks_are_refused", bad_input::networks),
    test("exec_ends_with_the_commands_exit_code_or_one_of_its_own", exec::exit_codes),
    test("exec_ends_when_the_hosts_folders_are_gone", exec::folders_gone),
    alone("linux_sgx_selftests_under_exec_pass", stacks::selftests),
    long("an_enclave_runs_under_fortanix_runner_in_exec", stacks::fortanix),
    test("exec_takes_its_root_from_a_disk_image", exec_root::image),
    test("exec_says_what_is_wrong_in_a_line_that_names_the_option", exec::failures),
    test("exec_carries_every_byte_and_the_end_of_each_stream", exec::streams),
    test("exec_changes_only_the_folders_that_it_may", exec::folders),
    test("exec_takes_words_and_variables_as_they_are", exec::words),
    test("exec_passes_signals_on", exec::signals),
    test("exec_has_a_terminal_and_gives_it_back_as_it_was", exec_complaints::terminal),
    test("exec_ends_at_a_key_before_the_command_runs", exec_complaints::early_key),
    test("exec_ends_at_a_key_whatever_the_command_does", exec_complaints::late_key),
    test("exec_leaves_the_hosts_etc_alone", exec_complaints::etc),
    test("exec_says_that_output_cannot_be_written", exec_complaints::full),
    test("exec_sees_files_that_the_host_replaces", exec_complaints::files),
    test("exec_has_places_to_write_and_to_load_enclaves", exec_complaints::places),
    test("exec_runs_an_enclave_of_the_host", exec::enclave),
    test("exec_is_seen_by_its_name_and_leaves_no_file", epc_view::of_exec),
    test("a_shared_folder_answers_posix_calls_as_the_host_does", posix::calls),
    test("oci_says_what_is_wrong_as_engines_expect_it", oci::errors),
    long("oci_containers_of_podman_run_enclaves_in_machines", oci::podman),
    long("oci_containers_of_containerd_run_enclaves_in_machines", oci::containerd),
    test("a_quote_from_the_aesm_socket_is_accepted_under_its_root_alone", attest::quotes),
    test("quotes_of_two_platforms_are_accepted_under_their_one_authority", attest::one_authority),
    test("without_the_provision_file_or_the_option_nothing_is_quoted", attest::withheld),
    long("exec_ends_with_each_exit_code_and_signal", exec_at_length::every_exit_code),
    long("exec_carries_a_hundred_megabytes", exec_at_length::much_input),
    long("fifty_machines_of_exec_run_and_are_killed_at_once", exec_at_length::many_machines),
    long("a_cloud_image_with_a_seed_is_configured", disk_boot::cloud_init),
    long("a_package_of_dist_installs_runs_and_leaves_no_file", dist::package),
    test("one_epc_section_has_its_size", epc::one_section),
    test("two_epc_sections_have_their_sizes", epc::two_sections),
    test("eight_epc_sections_have_their_sizes", epc::eight_sections),
    test("an_epc_of_64_gib_costs_nothing_until_used", epc::huge_section),
    test("without_epc_the_guest_sees_no_sgx", epc::no_section),
    test("without_sgx_lc_the_driver_does_not_come_up", epc::no_launch_control),
    test("the_sgx_driver_comes_up_without_an_error", sgx::driver),
    test("the_demo_enclave_runs_as_expected", sgx::demo),
    alone("the_demo_enclave_runs_on_four_processors", sgx::demo_on_four_processors),
    test("sealed_data_survive_a_restart_and_are_bound_to_their_platform", sgx::sealing),
    test("the_provisioning_key_is_the_platforms_and_takes_a_flag", sgx::provisioning),
    alone("no_racing_writer_gets_past_the_policy_of_the_guests_cpuid", policy::racing_writer),
    test("a_debugger_reads_and_writes_a_debug_enclave", sgx::debugger),
    alone("four_threads_are_in_an_enclave_at_once", sgx::threads),
    alone("enclaves_larger_than_the_epc_keep_their_contents", sgx::oversubscribed),
    alone("the_epc_of_a_running_machine_is_seen_until_it_ends", epc_view::running),
    test("avx_registers_of_an_enclave_survive_an_aex_and_stay_inside", sgx::vectors),
    test("pythons_qmp_client_stops_resets_and_powers_down_a_guest", monitor::python_client),
    test("query_sgx_says_what_cpuid_in_the_guest_says", monitor::sgx_is_what_cpuid_says),
    alone("the_line_of_the_2021_series_runs_the_demo_enclave", qemu::series),
    alone("nodes_have_their_processors_ram_and_epc", qemu::nodes),
    test("the_x86_selftests_pass_on_a_32_bit_kernel", x86::on_32_bits),
    alone("the_x86_selftests_pass_on_two_processors", x86::on_64_bits),
    alone("four_processors_run_with_all_code_translated", translate::always),
    long("two_hundred_boots_under_random_heats_end_well", translate::random_heats),
    long("ten_thousand_wild_guests_end_with_all_code_translated", translate::wild_guests),
    long("processors_that_patch_each_other_for_ten_minutes_agree", translate::patching),
    long("a_million_entries_by_random_vmcs_are_refused_fail_or_exit", vmx::random_vmcs),
    test("linux_6_12_passes_its_sgx_selftests_on_one_processor", kernels::newer),
    long(
        "linux_6_12_passes_its_sgx_selftests_on_four_processors",
        kernels::newer_on_four_processors,
    ),
    long("the_free_race_test_always_passes_on_one_processor", race::on_one_processor),
    long("the_free_race_test_is_counted_on_two_processors", race::on_two_processors),
    long("the_free_race_test_is_counted_on_four_processors", race::on_four_processors),
    alone("kvm_intel_of_linux_6_1_loads_without_a_warning", nested::kvm_of_linux_6_1),
    alone("kvm_intel_of_linux_6_12_loads_without_a_warning", nested::kvm_of_linux_6_12),
    long("the_kvm_selftests_pass_on_two_processors", kvm::selftests),
    alone("the_demo_enclave_runs_in_l2", |setup| nested::demo_enclave(setup, By::Qemu)),
    alone("without_its_device_the_provisioning_key_is_refused_in_l2", nested::provisioning),
    alone("with_launch_control_locked_l2_still_has_sgx", |setup| {
        nested::launch_control_locked(setup, By::Qemu)
    }),
    alone("the_rules_are_those_of_linux_6_1", rules::of_linux_6_1),
    alone("the_rules_are_those_of_linux_6_12", rules::of_linux_6_12),
    alone("enclaves_run_in_l1_and_l2_at_once", |setup| nested::at_once(setup, By::Qemu)),
    alone("enclaves_larger_than_the_epc_of_l2_keep_their_contents", |setup| {
        nested::oversubscribed(setup, By::Qemu)
    }),
    alone("a_killed_l2_with_enclaves_gives_all_of_its_epc_back", |setup| {
        nested::killed(setup, By::Qemu)
    }),
    long("the_demo_enclave_runs_in_l3", nested::demo_enclave_in_l3),
    alone("query_sgx_of_qemu_in_l1_says_what_cpuid_in_l2_says", nested::query_sgx),
    alone("linux_sgx_selftests_pass_in_l2", |setup| nested::selftests(setup, By::Qemu)),
    long("linux_sgx_selftests_pass_in_l2_on_four_processors", |setup| {
        nested::selftests_on_four_processors(setup, By::Qemu)
    }),
    alone("l2_resets_5_times_without_a_leak_in_l1", |setup| nested::reboots(setup, By::Qemu)),
    long("l2_resets_100_times_without_a_leak_in_l1", |setup| nested::many_reboots(setup, By::Qemu)),
    // The same by this project's own KVM, in an L1 that has SGX.
    alone("under_kvm_the_demo_enclave_runs", |setup| nested::demo_enclave(setup, By::Cloister)),
    alone("under_kvm_linux_sgx_selftests_pass", |setup| nested::selftests(setup, By::Cloister)),
    long("under_kvm_linux_sgx_selftests_pass_on_four_processors", |setup| {
        nested::selftests_on_four_processors(setup, By::Cloister)
    }),
    alone("under_kvm_with_launch_control_locked_there_is_sgx", |setup| {
        nested::launch_control_locked(setup, By::Cloister)
    }),
    alone("under_kvm_the_provisioning_key_takes_its_device", nested::provisioning_by_cloister),
    alone("under_kvm_epc_that_the_host_lacks_is_refused", nested::exhausted),
    long("under_kvm_enclaves_run_in_host_and_guest_at_once", |setup| {
        nested::at_once(setup, By::Cloister)
    }),
    alone("under_kvm_enclaves_larger_than_the_epc_keep_their_contents", |setup| {
        nested::oversubscribed(setup, By::Cloister)
    }),
    alone("under_kvm_a_killed_machine_gives_all_of_its_epc_back", |setup| {
        nested::killed(setup, By::Cloister)
    }),
    alone("under_kvm_resets_with_enclaves_leak_nothing", |setup| {
        nested::reboots(setup, By::Cloister)
    }),
    long("under_kvm_100_resets_with_enclaves_leak_nothing", |setup| {
        nested::many_reboots(setup, By::Cloister)
    }),
    test("under_kvm_exec_runs_an_enclave_of_the_host", exec::enclave_under_kvm),
    alone("under_kvm_the_line_of_the_2021_series_runs_an_enclave", nested::series),
    alone("under_kvm_sections_are_on_the_nodes_of_qemus_options", nested::nodes),
    long("under_kvm_200_machines_leave_all_of_the_epc", nested::many_machines),
    long("under_kvm_of_amd_a_guest_without_sgx_has_a_clock", amd::chosen),
    long("under_kvm_of_amd_that_does_not_stop_sgx_is_in_software", amd::passed_over),
    // And where L1 has no SGX, so that enclaves run in software there.
    alone("in_trap_mode_the_demo_enclave_runs", |setup| {
        nested::demo_enclave(setup, By::CloisterAlone)
    }),
    alone("in_trap_mode_the_guests_breakpoints_stop_it", nested::breakpoints),
    alone("in_trap_mode_linux_sgx_selftests_pass", |setup| {
        nested::selftests(setup, By::CloisterAlone)
    }),
    long("in_trap_mode_linux_sgx_selftests_pass_on_four_processors", |setup| {
        nested::selftests_on_four_processors(setup, By::CloisterAlone)
    }),
    alone("in_trap_mode_enclaves_larger_than_the_epc_keep_their_contents", |setup| {
        nested::oversubscribed(setup, By::CloisterAlone)
    }),
    long("in_trap_mode_resets_with_enclaves_leak_nothing", |setup| {
        nested::reboots(setup, By::CloisterAlone)
    }),
    alone("random_enclave_programs_come_to_the_same_in_trap_mode", random::programs),
    long("10000_random_enclave_programs_come_to_the_same_in_trap_mode", random::many_programs),
    alone("the_hammer_loses_no_epc", random::hammer),
    alone("under_kvm_the_hammer_loses_no_epc", random::hammer_under_kvm),
    alone("in_trap_mode_the_hammer_loses_no_epc", random::hammer_in_trap_mode),
    long("under_kvm_30_minutes_of_the_hammer_lose_no_epc", random::long_hammer_under_kvm),
    long("in_trap_mode_30_minutes_of_the_hammer_lose_no_epc", random::long_hammer_in_trap_mode),
    alone("linux_sgx_selftests_pass", sgx::selftests),
    alone("without_sgx2_its_selftests_skip_and_the_others_pass", sgx::selftests_without_sgx2),
    alone("linux_sgx_selftests_pass_on_four_processors", sgx::selftests_on_four_processors),
];
