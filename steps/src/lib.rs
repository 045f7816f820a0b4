//! The steps of a kubeadm upgrade and the ports they act through.
